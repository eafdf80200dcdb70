//! One thing is broken at a time, and `check` names it.

use std::io::Write as _;
use std::net::TcpListener;

use crate::Bench;

#[test]
fn all_is_well_but_kafka() {
    let said = Bench::new().check(&[]);
    assert_eq!((said.exit_code, said.failed()), (1, vec!["kafka"]));
    said.says("config", "ok", "bench-1");
    said.says("clock", "ok", "UTC");
    said.says("schemas", "ok", "v1, v2, v3");
    said.says("spool", "ok", "can be written");
    said.says("disk room", "ok", "free");
    said.says("device port", "ok", "is free");
    said.says("admin port", "ok", "is free");
    said.says("kafka", "fail", "the connection is refused");
}

#[test]
fn the_way_to_kafka() {
    let bench = Bench::new();
    bench.check(&["kafka.bootstrap=nowhere.invalid:9092"]).says(
        "kafka",
        "fail",
        "the name \"nowhere.invalid\" is not known",
    );
    bench.check(&["kafka.bootstrap=broker"]).says("kafka", "fail", "there is no port in it");
    // One of two is enough to go on; here it is not a broker that answers.
    let other = TcpListener::bind("127.0.0.1:0").unwrap();
    let place = other.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in other.incoming() {
            let _ = stream.unwrap().write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n");
        }
    });
    let said = bench.check(&[&format!("kafka.bootstrap=127.0.0.1:1,{place}")]);
    said.says("kafka", "warn", "127.0.0.1:1: the connection is refused");
    said.says("kafka", "ok", "takes connections");
    said.says("kafka", "fail", "does not answer as Kafka does");
}

#[test]
fn the_spools_folder() {
    let bench = Bench::new();
    let new = bench.path("a/b/spool");
    let said = bench.check(&[&format!("spool.dir={}", new.display())]);
    said.says("spool", "ok", "is not there yet");
    assert!(!bench.path("a").exists());
    let file = bench.path("gateway.toml");
    let said = bench.check(&[&format!("spool.dir={}", file.display())]);
    said.says("spool", "fail", "is a file, not a folder");
    // Nobody can write there, not even root.
    let said = bench.check(&["spool.dir=/proc/self"]);
    said.says("spool", "fail", "/proc/self");
}

#[test]
fn a_disk_without_enough_room_is_a_warning() {
    let said = Bench::new().check(&["spool.bytes_max=1000000000000000000"]);
    said.says("disk room", "warn", "may grow by");
    assert_eq!(said.failed(), ["kafka"]);
}

#[test]
fn the_ports() {
    let bench = Bench::new();
    let taken = TcpListener::bind(("127.0.0.1", bench.http_port)).unwrap();
    let said = bench.check(&[]);
    said.says("device port", "fail", "is taken by another program");
    assert_eq!(
        said.found("device port", "fail")[0]["todo"]
            .as_str()
            .unwrap()
            .matches("http.listen")
            .count(),
        1
    );
    drop(taken);
    // An address of documentation: no machine has it.
    let said = bench.check(&["admin.listen=192.0.2.1:8081"]);
    said.says("admin port", "fail", "does not have that address");
}
