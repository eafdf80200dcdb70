//! What `docs/examples.md` shows, run as it stands there, with the names and times of this run.

use std::path::Path;
use std::process::Stdio;

use anyhow::{Context, ensure};
use hw_tests::stack::{Stack, repo_dir};
use penstock_common::clock::{Clock, SystemClock};
use penstock_common::event::UnixMicros;
use tokio::process::Command;

/// An answer that has not ended by then is a stream.
const ANSWER_SECONDS_MAX: u32 = 5;
/// Before and after now: few enough minutes for the finest resolution.
const SPAN_MICROS: i64 = 6 * 3_600_000_000;

/// The device and the group that the examples ask for in this run.
pub(super) struct Subject<'a> {
    pub(super) fleet: &'a str,
    pub(super) device: &'a str,
    pub(super) group: &'a str,
}

/// Runs every example; each must answer with values.
pub(super) async fn run(stack: &Stack, token: &str, subject: &Subject<'_>) -> anyhow::Result<()> {
    let text = std::fs::read_to_string(repo_dir()?.join("docs/examples.md"))?;
    let here = |code: &str| here(code, stack, subject);
    let said = shell(&here(&block(&text, "sh", 0)?)?, token).await.context("the curl example")?;
    // A whole live window is more than anybody reads.
    let beginning: String = said.chars().take(2_000).collect();
    for wanted in ["\"devices\":[{", "\"points\":[{", "at,p95,", "event: snapshot\n"] {
        ensure!(said.contains(wanted), "no {wanted:?} in what curl says:\n{beginning}");
    }
    let python = here(&block(&text, "python", 0)?)?;
    let said = run_python(&python, &[], token).await.context("the Python example")?;
    let maximum: f64 = said.trim().parse().with_context(|| format!("Python says {said}"))?;
    ensure!(maximum.is_finite(), "Python says {said}");

    let sql = here(&block(&text, "sql", 0)?)?;
    let said = duckdb(&sql, stack).await.context("the DuckDB example")?;
    ensure!(said.contains(subject.device), "DuckDB says {said}");
    let sql = here(&block(&text, "sql", 1)?)?;
    let rows = grafana(&sql, stack).await.context("the Grafana example")?;
    ensure!(rows > 0, "the Grafana example finds no rows");
    Ok(())
}

/// The code of the block number `index` in a language.
fn block(text: &str, language: &str, index: usize) -> anyhow::Result<String> {
    let code = text.split(&format!("```{language}\n")).nth(index + 1);
    let code = code.and_then(|rest| rest.split("```").next());
    code.map(str::to_owned)
        .with_context(|| format!("no block {index} of {language} in the examples"))
}

/// The example with what this run has in the place of the names in the documents.
fn here(code: &str, stack: &Stack, subject: &Subject<'_>) -> anyhow::Result<String> {
    let now = SystemClock.now();
    let (begin, end) = (UnixMicros(now.0 - SPAN_MICROS), UnixMicros(now.0 + SPAN_MICROS));
    let hour = |time: UnixMicros| time.to_rfc3339()[..13].replace('T', " ");
    let store = stack.dir.join("store");
    let replaced = [
        ("http://127.0.0.1:8090", format!("http://{}", stack.api.address)),
        ("q=press", format!("q={}", subject.device)),
        ("press-line", subject.fleet.to_owned()),
        ("press-17", subject.device.to_owned()),
        ("group=hall-2", format!("group={}", subject.group.replace(' ', "%20"))),
        ("2026-11-22T00:00:00Z", begin.to_rfc3339()),
        ("2026-11-23T00:00:00Z", end.to_rfc3339()),
        ("2026-11-22 00", hour(begin)),
        ("2026-11-22 23", hour(end)),
        ("s3://bucket/prefix", store.display().to_string()),
        ("$__timeFilter(bucket)", "bucket > now() - interval '1 day'".to_owned()),
    ];
    let code = replaced.iter().fold(code.to_owned(), |code, (from, to)| code.replace(from, to));
    for left in ["127.0.0.1:8090", "press-", "=hall-2", "s3://", "$__"] {
        ensure!(!code.contains(left), "{left} is left in:\n{code}");
    }
    Ok(code)
}

/// A stream is cut after a while; everything else must succeed.
async fn shell(script: &str, token: &str) -> anyhow::Result<String> {
    let script = format!(
        "curl() {{ command curl -sS --fail-with-body --max-time {ANSWER_SECONDS_MAX} \"$@\" || \
         [ $? = 28 ]; }}\n{script}"
    );
    output(Command::new("bash").args(["-eu", "-c", &script]).env("PENSTOCK_TOKEN", token)).await
}

async fn run_python(code: &str, args: &[&Path], token: &str) -> anyhow::Result<String> {
    let python = std::env::var("PENSTOCK_ANALYST_PYTHON");
    let python = python.context("PENSTOCK_ANALYST_PYTHON is set by ./dev test")?;
    let mut command = Command::new(python);
    output(command.args(["-c", code]).args(args).env("PENSTOCK_TOKEN", token)).await
}

/// `.read` is of DuckDB's shell; its Python package has none.
async fn duckdb(sql: &str, stack: &Stack) -> anyhow::Result<String> {
    let (read, query) = sql.split_once('\n').context("a line that reads the macro")?;
    let file = read.strip_prefix(".read ").context(".read comes first")?;
    let query_file = stack.dir.join("example.sql");
    std::fs::write(&query_file, query)?;
    let code = "import duckdb, sys\nfor file in sys.argv[1:3]:\n    \
                last = duckdb.execute(open(file).read())\nprint(last.fetchall())";
    run_python(code, &[&repo_dir()?.join(file), &query_file], "").await
}

async fn grafana(sql: &str, stack: &Stack) -> anyhow::Result<usize> {
    let dsn = stack.places().rollup_dsn;
    let (client, connection) = tokio_postgres::connect(&dsn, tokio_postgres::NoTls).await?;
    let connection = tokio::spawn(connection);
    let rows = client.query(sql, &[]).await?.len();
    drop(client);
    connection.await??;
    Ok(rows)
}

async fn output(command: &mut Command) -> anyhow::Result<String> {
    let output = command.stdin(Stdio::null()).kill_on_drop(true).output().await?;
    let said = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{}\n{said}\n{errors}", output.status);
    Ok(said.into_owned())
}
