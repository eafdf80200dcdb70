//! A configuration that can't be used, and one that is printed.

use crate::Bench;

#[test]
fn every_mistake_is_told_at_once_with_its_line() {
    let bench = Bench::new();
    let config = bench.config();
    let line = |text: &str| 1 + config.lines().position(|line| line.starts_with(text)).unwrap();
    let (fleet, bytes_max) = (line("fleet"), line("bytes_max"));
    let wrong = config
        .replace("fleet = \"press-line\"", "fleet = \"press line\"")
        .replace("bytes_max = 1048576", "bytes_max = \"1 MiB\"")
        .replace("bootstrap", "boostrap");
    bench.write(&wrong);
    let said = bench.check(&["http.retry_after_s=0"]);
    assert_eq!(said.exit_code, 2);
    assert_eq!(said.failed(), ["config"]);
    let found = said.found("config", "fail")[0]["found"].as_str().unwrap();
    for words in [
        format!("line {fleet}: gateway.fleet: \"press line\""),
        format!("line {bytes_max}: spool.bytes_max: invalid type: string \"1 MiB\""),
        format!("line {}: kafka.boostrap: unknown field", wrong.lines().count()),
        "--set http.retry_after_s=0: http.retry_after_s: 0; expected 1 to 3600".into(),
    ] {
        assert!(found.contains(&words), "{words:?} is not in {found}");
    }
    // The gateway itself says the same, and does not start.
    let output = bench.program("run", &[]).output().unwrap();
    let told = String::from_utf8(output.stderr).unwrap();
    assert!(!output.status.success() && told.contains("kafka.boostrap: unknown field"), "{told}");
}

#[test]
fn the_effective_configuration_is_printed_and_can_be_used_again() {
    let bench = Bench::new();
    let print = |set: &[&str]| {
        let mut command = bench.program("run", &["--print-config"]);
        set.iter().for_each(|item| {
            command.args(["--set", item]);
        });
        let output = command.output().unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    let printed = print(&["kafka.linger_ms=7"]);
    for line in ["name = \"bench-1\"", "linger_ms = 7", "retry_after_s = 5", "format = \"text\""] {
        assert!(printed.contains(line), "{line} is not in {printed}");
    }
    bench.write(&printed);
    assert_eq!(print(&[]), printed);
}
