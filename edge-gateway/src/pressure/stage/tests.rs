use std::sync::{Arc, Mutex};

use super::*;

#[derive(Clone, Default)]
struct World(Arc<Mutex<Sample>>);

impl Watched for World {
    fn sample(&self) -> Sample {
        *self.0.lock().unwrap()
    }
}

struct Bench {
    world: World,
    core: watch::Sender<CorePressure>,
    gate: Gate,
    running: Running<World>,
    outputs: Outputs,
    now: Instant,
}

fn bench() -> Bench {
    let world = World::default();
    let metrics = PressureMetrics::new(&Registry::new()).unwrap();
    let gate = Gate::new(metrics.refused.clone());
    let (core, heard) = watch::channel(CorePressure::default());
    let stage = Stage {
        config: PressureConfig { disk_free_bytes_min: 100, ..PressureConfig::default() },
        soft_bytes: 750,
        hard_bytes: 950,
        dir: PathBuf::from("."),
        watched: world.clone(),
        core: heard,
        gate: gate.clone(),
        metrics,
    };
    let (running, outputs) = stage.running();
    Bench { world, core, gate, running, outputs, now: Instant::now() }
}

impl Bench {
    fn set(&self, set: impl FnOnce(&mut Sample)) {
        set(&mut self.world.0.lock().unwrap());
    }

    /// A look at the world some time later.
    fn look(&mut self) -> State {
        self.now += Duration::from_secs(1);
        self.running.look(Some(1_000), self.now);
        self.outputs.view.borrow().state
    }

    fn transitions(&self, from: &str, to: &str) -> u64 {
        self.running.stage.metrics.transitions.with_label_values(&[from, to]).get()
    }

    fn refused_of_1000(&self) -> usize {
        (0..1_000).filter(|_| self.gate.ask().is_err()).count()
    }
}

#[tokio::test]
async fn transitions_are_counted_once_and_reach_those_who_ask() {
    let mut bench = bench();
    assert_eq!((bench.look(), bench.refused_of_1000()), (State::Open, 0));
    bench.set(|sample| sample.spool_bytes = 800);
    for _ in 0..5 {
        assert_eq!(bench.look(), State::Shed);
    }
    assert_eq!(bench.transitions("open", "shed"), 1);
    let refused = bench.refused_of_1000();
    assert!((150..650).contains(&refused), "{refused}");
    // Nothing drains: devices wait as long as they are ever told to.
    assert_eq!(bench.outputs.view.borrow().retry_after_s, 120);
    bench.set(|sample| sample.pending_entries = 80);
    for _ in 0..200 {
        bench.set(|sample| sample.acknowledged_total += 30);
        bench.look();
    }
    // 300 bytes a second; 90 above the place where all is taken.
    assert_eq!(bench.outputs.view.borrow().drain_bytes_per_s / 10, 29);
    assert_eq!(bench.outputs.view.borrow().retry_after_s, 1);
    bench.set(|sample| sample.is_failing = true);
    assert_eq!(bench.look(), State::Refuse);
    assert!(bench.refused_of_1000() > 990);
    bench.set(|sample| *sample = Sample::default());
    assert_eq!((bench.look(), bench.refused_of_1000()), (State::Open, 0));
    assert_eq!((bench.transitions("shed", "refuse"), bench.transitions("refuse", "open")), (1, 1));
}

#[tokio::test]
async fn at_the_hard_limit_the_spool_makes_room_and_without_any_all_is_refused() {
    let mut bench = bench();
    bench.set(|sample| sample.spool_bytes = 960);
    assert_eq!(bench.look(), State::Evict);
    bench.set(|sample| sample.spool_bytes = 900);
    assert_eq!(bench.look(), State::Shed);
    bench.set(|sample| (sample.spool_bytes, sample.is_dead_full) = (990, true));
    assert_eq!((bench.look(), bench.refused_of_1000()), (State::Refuse, 1_000));
    bench.set(|sample| sample.is_dead_full = false);
    assert_eq!(bench.look(), State::Evict);
}

#[tokio::test]
async fn the_cores_word_holds_events_until_it_is_old() {
    let mut bench = bench();
    let word = CorePressure { hold: true, reason: "behind".into(), ..CorePressure::default() };
    bench.core.send(word.clone()).unwrap();
    assert_eq!(bench.look(), State::Hold);
    assert!(*bench.outputs.hold.borrow());
    assert_eq!(bench.outputs.view.borrow().hold_reason.as_deref(), Some("behind"));
    // It goes on for as long as the core is heard of.
    for _ in 0..5 {
        bench.now += Duration::from_secs(590);
        bench.core.send(word.clone()).unwrap();
        assert_eq!(bench.look(), State::Hold);
    }
    bench.now += Duration::from_secs(601);
    assert_eq!(bench.look(), State::Open);
    assert!(!*bench.outputs.hold.borrow());
    // And a word that it is over counts at once.
    bench.core.send(word).unwrap();
    assert_eq!(bench.look(), State::Hold);
    bench.core.send(CorePressure::default()).unwrap();
    assert_eq!(bench.look(), State::Open);
}
