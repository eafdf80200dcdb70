//! A real mosquitto of a test's own, on a free port, with its data in a temporary directory.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;

use crate::eventually;

pub(crate) struct Mosquitto {
    pub(crate) dir: TempDir,
    pub(crate) port: u16,
    child: Option<Child>,
}

/// Settings without which messages would not outlive it.
const PERSISTENT: &str = "persistence true\nautosave_interval 1\nautosave_on_changes true\n\
                          max_queued_messages 0\nmax_inflight_messages 0\n";

impl Mosquitto {
    /// One that lets anybody in.
    pub(crate) async fn start() -> Self {
        Self::with("allow_anonymous true\nmax_packet_size 1114112\n").await
    }

    /// One with these settings for its listener; `{dir}` stands for its directory.
    pub(crate) async fn with(settings: &str) -> Self {
        Self::prepared(tempfile::tempdir().unwrap(), settings).await
    }

    /// The same, in a directory that holds files for it already.
    pub(crate) async fn prepared(dir: TempDir, settings: &str) -> Self {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let path = dir.path().display().to_string();
        // As root it would become another user, who can't write here.
        let user = Command::new("id").arg("-un").output().unwrap().stdout;
        let user = String::from_utf8(user).unwrap();
        let text = format!(
            "listener {port} 127.0.0.1\nuser {user}{PERSISTENT}persistence_location {path}/\n{}",
            settings.replace("{dir}", &path)
        );
        std::fs::write(dir.path().join("mosquitto.conf"), text).unwrap();
        let mut mosquitto = Self { dir, port, child: None };
        mosquitto.restart().await;
        mosquitto
    }

    /// Starts it again, with what it has on disk.
    pub(crate) async fn restart(&mut self) {
        let path = self.dir.path().join("log");
        let log = std::fs::File::options().create(true).append(true).open(path).unwrap();
        let child = Command::new(program())
            .arg("-c")
            .arg(self.dir.path().join("mosquitto.conf"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn();
        self.child = Some(child.expect("start mosquitto"));
        let (child, port) = (self.child.as_mut().unwrap(), self.port);
        eventually("mosquitto listens", || {
            let ended = child.try_wait().unwrap();
            assert!(ended.is_none(), "mosquitto ended: {ended:?}");
            std::net::TcpStream::connect(("127.0.0.1", port)).is_ok()
        })
        .await;
    }

    /// Kills it as a crash would.
    pub(crate) fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }
}

impl Drop for Mosquitto {
    fn drop(&mut self) {
        self.kill();
    }
}

fn program() -> PathBuf {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&path).chain([Path::new("/usr/sbin").to_owned()]);
    let found = folders.map(|folder| folder.join("mosquitto")).find(|program| program.is_file());
    found.expect("mosquitto is not installed: deploy/local/mosquitto/install")
}
