//! A few power cuts, and a gateway that does not sync, with which the rig must find loss. A
//! hundred cuts: `./dev power-cut`.

use hw_tests::power_cut::guest::Arch;
use hw_tests::power_cut::{self, PowerCutArgs, Report};

fn args(cuts: u32, lie: bool) -> PowerCutArgs {
    PowerCutArgs {
        cuts,
        arch: Arch::X86_64,
        seed: std::env::var("PENSTOCK_TEST_SEED").ok().map(|seed| seed.parse().unwrap()),
        lie,
        gateway: None,
        devices: 20,
        rate: 500.0,
        load_events_max: 600,
    }
}

async fn cut(args: PowerCutArgs) -> Report {
    let report = power_cut::cut(&args).await.unwrap();
    println!("{report}");
    report
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_acknowledged_survives_power_cuts() {
    cut(args(4, false)).await.check(false).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gateway_that_does_not_sync_is_caught() {
    cut(args(2, true)).await.check(true).unwrap();
}
