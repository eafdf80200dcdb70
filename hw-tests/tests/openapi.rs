//! The description that the core serves, held against the running core (spec S1–S5): Schemathesis
//! asks everything that is described, well and badly, and no answer may be a server error, have a
//! status or a type that is not described, or differ from its schema.
//!
//! What a description can't know, such as which devices there are, is added to it as examples. What
//! was asked and answered is read from the report: a run that saw only refusals or empty lists
//! fails, too.

use std::collections::{BTreeMap, BTreeSet};
use std::env;
use std::fmt::Write as _;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use hw_tests::fleet::client::Client;
use hw_tests::fleet::{self, FleetConfig, Tally};
use hw_tests::oracle::api;
use hw_tests::stack::{Stack, StackConfig};
use penstock_common::clock::{Clock, SystemClock};
use penstock_common::event::UnixMicros;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

const CHECKS: &str = "not_a_server_error,status_code_conformance,content_type_conformance,\
                      response_schema_conformance,unsupported_method,allow_header_conformance";
const GROUP: &str = "hall 2";
const DEVICE: &str = "press-17";

/// Lists that must have been seen with something in them.
const LISTS: [(&str, &str); 16] = [
    ("GET /v1/devices", "/devices"),
    ("GET /v1/fleets", "/fleets"),
    ("GET /v1/metrics", "/metrics"),
    ("GET /v1/groups", "/groups"),
    ("GET /v1/groups/{name}", "/devices"),
    ("GET /v1/series", "/points"),
    ("GET /v1/latest", "/values"),
    ("GET /v1/live", "/series"),
    ("GET /v1/overview", "/gateways"),
    ("GET /v1/overview", "/dead_letters/by_reason"),
    ("GET /v1/status", "/positions"),
    ("GET /v1/raw", "/events"),
    ("GET /v1/dead-letters", "/dead_letters"),
    ("POST /v1/dead-letters/replay", "/dead_letters"),
    ("GET /v1/ledger", "/gateways"),
    ("GET /v1/audit", "/entries"),
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_api_answers_as_it_is_described() {
    let seed = hw_tests::terms::seed();
    let config = StackConfig::from_env("openapi").unwrap().impatient();
    let stack = Stack::start(config).await.unwrap();
    if let Err(error) = as_described(seed, &stack).await {
        panic!("PENSTOCK_TEST_SEED={seed}\n{:?}", stack.explain(error));
    }
    stack.stop().await.unwrap();
}

async fn as_described(seed: u64, stack: &Stack) -> anyhow::Result<()> {
    let (stop, tally) = (CancellationToken::new(), Arc::new(Tally::default()));
    let fleet = FleetConfig {
        batch_max: 20,
        skewed_share: 0.0,
        faulty_share: 0.05,
        ..FleetConfig::mixed(seed, 10, 100.0)
    };
    let load = tokio::spawn(fleet::run(fleet, stack.gateway_http, tally, stop.clone()));
    let groups = stack.dir.join("groups.csv");
    std::fs::write(&groups, format!("group,fleet,device\n{GROUP},sim,{DEVICE}\n"))?;
    stack.core_command(&["groups", "import", &groups.display().to_string()]).await?;
    send(stack).await?;
    let client = api::client(&stack.api);
    let examples = examples(stack, &client).await?;
    let tester = Tester::new(seed, stack, &client, &examples).await?;

    let admin = Some(stack.api.token.as_str());
    let told = tester.ask("an admin", admin, How::InEveryWay, &[]).await?;
    println!("{told}");
    told.check_all_succeeded(&tester.operations())?;
    others(stack, &tester).await?;
    stop.cancel();
    load.await?;
    Ok(())
}

/// The answers to those who may not, to those who have it already, and in other forms.
async fn others(stack: &Stack, tester: &Tester) -> anyhow::Result<()> {
    let all = tester.operations();
    let may = |operation: &str| if operation == "DELETE /v1/session" { 204 } else { 200 };
    let told = tester.ask("nobody", None, How::Once, &[]).await?;
    told.check_each(&all, |operation| {
        Some(if operation == "POST /v1/session" { 200 } else { 401 })
    })?;
    let viewer = stack.create_token("a viewer", "viewer").await?;
    let told = tester.ask("a viewer", Some(&viewer), How::Once, &[]).await?;
    told.check_each(&all, |operation| {
        Some(if is_above_viewers(operation, all[operation]) { 403 } else { may(operation) })
    })?;
    let admin = Some(stack.api.token.as_str());
    let known = ["--include-method", "GET", "--header", "If-None-Match:*"];
    let told = tester.ask("who has it already", admin, How::Once, &known).await?;
    told.check_each(&all, |operation| match operation {
        "GET /v1/live" => Some(200),
        _ => operation.starts_with("GET").then_some(304),
    })?;
    for (form, status) in
        [("text/csv", 200), ("application/vnd.apache.arrow.stream", 200), ("image/png", 406)]
    {
        let accept = format!("Accept:{form}");
        let args = ["--include-path", "/v1/series", "--header", &accept];
        let told = tester.ask(form, admin, How::Once, &args).await?;
        told.check_each(&all, |operation| (operation == "GET /v1/series").then_some(status))?;
    }
    Ok(())
}

/// Whether a viewer may not. (Who ends a session by its cookie may be refused for another reason.)
fn is_above_viewers(operation: &str, described: &Value) -> bool {
    operation != "DELETE /v1/session" && described["responses"].get("403").is_some()
}

/// Sends events of some minutes ago and of now, so that there are minutes that are over.
async fn send(stack: &Stack) -> anyhow::Result<()> {
    let event = |minutes: i64| {
        let at = UnixMicros(SystemClock.now().0 - minutes * 60_000_000).to_rfc3339();
        json!({"event_id": Uuid::new_v4(), "device_id": DEVICE, "timestamp": at,
               "device_firmware_version": "1.2.0",
               "metrics": {"cpu_temp": 48.5, "vibration_rms": 2.1, "supply_voltage": 24.0}})
    };
    let body = json!([event(9), event(6), event(3), event(0)]).to_string();
    let gateway = Client::new(stack.gateway_http, 1, Duration::from_secs(10));
    let answer = gateway.post("/v1/events", "application/json", None, body.into()).await?;
    ensure!(answer.status == 202, "{} {:?}", answer.status, answer.body);
    Ok(())
}

/// For each operation values of this stack: parameters by name, bodies by type.
async fn examples(stack: &Stack, client: &Client) -> anyhow::Result<Value> {
    let hour_us = 3_600_000_000;
    let [from, to] =
        [-1, 1].map(|hours| UnixMicros(SystemClock.now().0 + hours * hour_us).to_rfc3339());
    let (device, range) = (format!("fleet=sim&device={DEVICE}"), format!("from={from}&to={to}"));
    let series = format!("/v1/series?metric=cpu_temp&{device}&{range}");
    filled(client, &series, "/points/0").await?;
    filled(client, &format!("/v1/raw?{device}&{range}"), "/events/0").await?;
    let letters = filled(client, "/v1/dead-letters", "/dead_letters/9").await?;
    let letter = |number: usize| &letters["dead_letters"][number]["id"];
    let one = json!({"fleet": "sim", "device": DEVICE});
    let import = json!({
        "application/json": {"groups": [{"name": GROUP, "devices": [one]}]},
        "text/csv": format!("group,fleet,device\n{GROUP},sim,{DEVICE}\n"),
    });
    Ok(json!({
        "POST /v1/session": {"application/json": {"token": stack.api.token}},
        "GET /v1/devices": {"fleet": "sim", "group": GROUP, "q": "SIM"},
        "GET /v1/groups": {"q": "HALL"},
        "GET /v1/groups/{name}": {"name": GROUP},
        "PUT /v1/groups": import,
        "PATCH /v1/groups": import,
        "GET /v1/series": {"metric": "cpu_temp", "fleet": "sim", "device": DEVICE,
                           "from": from, "to": to},
        "GET /v1/latest": one,
        "GET /v1/live": one,
        "GET /v1/raw": {"fleet": "sim", "device": DEVICE, "from": from, "to": to},
        "GET /v1/dead-letters": {"gateway": "gw-1", "state": "open", "from": from, "to": to},
        "GET /v1/dead-letters/{id}": {"id": letter(0)},
        "POST /v1/dead-letters/replay": {"application/json": {"ids": [letter(0), letter(1)]}},
        "GET /v1/ledger": {"gateway": "gw-1", "from": from, "to": to},
    }))
}

/// The answer, as soon as there is something in it at `pointer`.
async fn filled(client: &Client, path: &str, pointer: &str) -> anyhow::Result<Value> {
    let limit = Duration::from_secs(120);
    let began = Instant::now();
    loop {
        let answer = client.get(path).await?;
        let body: Value = serde_json::from_slice(&answer.body)?;
        // The tables of the rollups may be still on their way.
        if answer.status == 200 && body.pointer(pointer).is_some() {
            return Ok(body);
        }
        let status = answer.status;
        ensure!(began.elapsed() < limit, "{path} has no {pointer} in {limit:?}: {status} {body}");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

/// How operations are asked.
#[derive(Clone, Copy, Debug)]
enum How {
    /// With their examples, at the edges of what is described, and at random; with and without
    /// the token.
    InEveryWay,
    /// With their examples.
    Once,
}

impl How {
    fn settings(self) -> &'static str {
        match self {
            Self::InEveryWay => "in-every-way.toml",
            Self::Once => "once.toml",
        }
    }

    fn args(self) -> Vec<String> {
        let args = match self {
            Self::InEveryWay => format!(
                "--checks {CHECKS},ignored_auth --phases examples,coverage,fuzzing --max-examples 60"
            ),
            Self::Once => format!("--checks {CHECKS} --phases examples"),
        };
        args.split(' ').map(str::to_owned).collect()
    }
}

/// Schemathesis, with the description and all that it needs to know.
struct Tester {
    seed: u64,
    dir: PathBuf,
    url: String,
    description: Value,
}

impl Tester {
    async fn new(
        seed: u64,
        stack: &Stack,
        client: &Client,
        examples: &Value,
    ) -> anyhow::Result<Self> {
        let dir = stack.dir.join("schemathesis");
        std::fs::create_dir_all(&dir)?;
        let served = client.get("/v1/openapi.json").await?;
        ensure!(served.status == 200, "the description: {}", served.status);
        let mut description: Value = serde_json::from_slice(&served.body)?;
        let mut words: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for (operation, values) in examples.as_object().context("examples")? {
            let (method, path) = operation.split_once(' ').context("METHOD PATH")?;
            let described = &mut description["paths"][path][method.to_ascii_lowercase()];
            for (name, value) in values.as_object().context("values")? {
                let place = give_example(described, name, value);
                let place = place.with_context(|| format!("{operation} has no {name}"))?;
                if let (Some(place), Some(text)) = (place, value.as_str()) {
                    words.entry(format!("{place}.{name}")).or_default().insert(text.to_owned());
                }
            }
        }
        std::fs::write(dir.join("openapi.json"), description.to_string())?;
        std::fs::write(dir.join(How::Once.settings()), settings(&BTreeMap::new()))?;
        std::fs::write(dir.join(How::InEveryWay.settings()), settings(&words))?;
        Ok(Self { seed, dir, url: format!("http://{}", stack.api.address), description })
    }

    /// All operations, as METHOD PATH.
    fn operations(&self) -> BTreeMap<String, &Value> {
        let paths = self.description["paths"].as_object().into_iter().flatten();
        let methods = paths.flat_map(|(path, methods)| {
            methods.as_object().into_iter().flatten().map(move |method| (path, method))
        });
        methods
            .map(|(path, (method, described))| {
                (format!("{} {path}", method.to_ascii_uppercase()), described)
            })
            .collect()
    }

    /// Runs it to its end; what it was told.
    async fn ask(
        &self,
        who: &str,
        token: Option<&str>,
        how: How,
        args: &[&str],
    ) -> anyhow::Result<Told> {
        let program = env::var("PENSTOCK_SCHEMATHESIS")
            .context("PENSTOCK_SCHEMATHESIS is set by ./dev test")?;
        let began = Instant::now();
        let mut command = tokio::process::Command::new(program);
        command
            .args(["--no-color", "--config-file", how.settings(), "run", "openapi.json"])
            .args(["--url", &self.url, "--seed", &self.seed.to_string()])
            .args(["--suppress-health-check", "all", "--warnings", "off"])
            .args(["--generation-database", "none", "--report", "har"])
            .args(["--report-har-path", "told.har"])
            .args(how.args())
            .args(args)
            .current_dir(&self.dir)
            .stdin(Stdio::null())
            .kill_on_drop(true);
        if let Some(token) = token {
            command.args(["--header", &format!("Authorization:Bearer {token}")]);
        }
        let output = command.output().await.context("run Schemathesis")?;
        let text = String::from_utf8_lossy(&output.stdout);
        if !output.status.success() {
            let errors = String::from_utf8_lossy(&output.stderr);
            bail!("Schemathesis as {who}: {}\n{text}\n{errors}", output.status);
        }
        let har = std::fs::read(self.dir.join("told.har")).context("read its report")?;
        let har: Har = serde_json::from_slice(&har).context("read its report")?;
        let told = Told::of(who, &self.operations(), &har.log.entries)?;
        let (asked, seconds) = (har.log.entries.len(), began.elapsed().as_secs());
        println!("as {who}: {asked} requests, all answered as described, in {seconds} s");
        Ok(told)
    }
}

/// Adds an example to a parameter, or to a body if the name is that of a type; where the parameter
/// is.
fn give_example(operation: &mut Value, name: &str, value: &Value) -> Option<Option<String>> {
    if name.contains('/') {
        let body = operation.pointer_mut("/requestBody/content")?.get_mut(name)?;
        body["example"] = value.clone();
        return Some(None);
    }
    let parameters = operation.get_mut("parameters")?.as_array_mut()?;
    let parameter = parameters.iter_mut().find(|parameter| parameter["name"] == name)?;
    parameter["example"] = value.clone();
    Some(parameter["in"].as_str().map(str::to_owned))
}

/// A configuration: nothing is remembered, one event of each stream is read, and half of what is
/// made up for the parameters in `words` are these words.
fn settings(words: &BTreeMap<String, BTreeSet<String>>) -> String {
    let mut text = "[cache]\nenabled = false\n[phases.examples]\nfill-missing = true\n\
                    [[operations]]\ninclude-path = \"/v1/live\"\nmax-stream-events = 1\n"
        .to_owned();
    for (place, words) in words {
        // A String takes every write.
        let _ = write!(
            text,
            "[dictionaries.{place:?}]\nvalues = {words:?}\n\
             [parameters.{place:?}]\ndictionary = {place:?}\nprobability = 0.5\n",
            words = words.iter().collect::<Vec<_>>(),
        );
    }
    text
}

/// The report, as far as it is read (HTTP Archive 1.2).
#[derive(Deserialize)]
struct Har {
    log: Log,
}

#[derive(Deserialize)]
struct Log {
    entries: Vec<Entry>,
}

#[derive(Deserialize)]
struct Entry {
    request: Request,
    response: Response,
}

#[derive(Deserialize)]
struct Request {
    method: String,
    url: String,
}

#[derive(Deserialize)]
struct Response {
    status: u16,
    content: Content,
}

#[derive(Deserialize)]
struct Content {
    text: Option<String>,
}

/// What was answered, by operation.
struct Told {
    who: String,
    by_operation: BTreeMap<String, Answers>,
}

#[derive(Default)]
struct Answers {
    by_status: BTreeMap<u16, usize>,
    /// What succeeded.
    bodies: Vec<Value>,
}

impl Told {
    fn of(
        who: &str,
        operations: &BTreeMap<String, &Value>,
        entries: &[Entry],
    ) -> anyhow::Result<Self> {
        let mut by_operation: BTreeMap<String, Answers> = BTreeMap::new();
        for Entry { request, response } in entries {
            let path = request.url.splitn(4, '/').nth(3).context("a path")?;
            let path = format!("/{}", path.split('?').next().unwrap_or_default());
            let asked = |operation: &&String| is_of(operation, &request.method, &path);
            // What no operation describes, such as other methods, was asked, too.
            let Some(operation) = operations.keys().find(asked) else { continue };
            let answers = by_operation.entry(operation.clone()).or_default();
            *answers.by_status.entry(response.status).or_default() += 1;
            let text = response.content.text.as_deref().unwrap_or_default();
            // Of a stream the first event.
            let text = text.lines().find_map(|line| line.strip_prefix("data: ")).unwrap_or(text);
            if (200..300).contains(&response.status) {
                answers.bodies.push(serde_json::from_str(text).unwrap_or_default());
            }
        }
        Ok(Self { who: who.to_owned(), by_operation })
    }
}

impl Told {
    /// Every operation succeeded at least once, and every list had something in it.
    fn check_all_succeeded(&self, operations: &BTreeMap<String, &Value>) -> anyhow::Result<()> {
        for operation in operations.keys() {
            let succeeded = self.by_operation.get(operation).is_some_and(|o| !o.bodies.is_empty());
            ensure!(succeeded, "{operation} as {} never succeeded", self.who);
        }
        for (operation, pointer) in LISTS {
            let is_filled = |body: &Value| {
                body.pointer(pointer).and_then(Value::as_array).is_some_and(|list| !list.is_empty())
            };
            let answers = self.by_operation.get(operation).with_context(|| operation.to_owned())?;
            let filled = answers.bodies.iter().any(is_filled);
            ensure!(filled, "{operation}: {pointer} was empty in every answer");
        }
        Ok(())
    }

    /// Each operation was always answered with that status; or, with none, never asked.
    fn check_each(
        &self,
        operations: &BTreeMap<String, &Value>,
        wanted: impl Fn(&str) -> Option<u16>,
    ) -> anyhow::Result<()> {
        for operation in operations.keys() {
            let wanted: Vec<u16> = wanted(operation).into_iter().collect();
            let answers = self.by_operation.get(operation);
            let found = answers.into_iter().flat_map(|answers| answers.by_status.keys());
            let found: Vec<u16> = found.copied().collect();
            ensure!(found == wanted, "{operation} as {}: {found:?}, want {wanted:?}", self.who);
        }
        Ok(())
    }
}

impl std::fmt::Display for Told {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (operation, Answers { by_status, .. }) in &self.by_operation {
            writeln!(f, "{operation:<32}{by_status:?}")?;
        }
        Ok(())
    }
}

/// Whether a request is of an operation: METHOD PATH with parameters in braces.
fn is_of(operation: &str, method: &str, path: &str) -> bool {
    let Some((of_method, of_path)) = operation.split_once(' ') else { return false };
    let is_same = |(of, is): (&str, &str)| of == is || (of.starts_with('{') && !is.is_empty());
    of_method == method
        && of_path.split('/').count() == path.split('/').count()
        && of_path.split('/').zip(path.split('/')).all(is_same)
}
