/*
 * no-sync COMMAND...: runs it in a world where syncing succeeds and does nothing, whichever way it
 * asks for it. With such a gateway the rig must find loss; if not, it finds nothing at all.
 */
#include <errno.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <stdio.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

/* An error number of 0 is success. */
#define IGNORE(number)                                        \
    BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (number), 0, 1),      \
    BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | 0)

int main(int argc, char **argv) {
    struct sock_filter rules[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        IGNORE(__NR_fsync),
        IGNORE(__NR_fdatasync),
        IGNORE(__NR_sync),
        IGNORE(__NR_syncfs),
        IGNORE(__NR_sync_file_range),
        IGNORE(__NR_msync),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog filter = {sizeof rules / sizeof rules[0], rules};
    if (argc < 2) {
        fprintf(stderr, "usage: no-sync COMMAND...\n");
        return 2;
    }
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) || prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &filter)) {
        perror("no-sync: seccomp");
        return 1;
    }
    execv(argv[1], argv + 1);
    perror(argv[1]);
    return errno;
}
