//! How long each stage of a run took.
//!
//! In: meters of the run, statistics of its feed, logs of the jobs that made its data. Out: the
//! rows of the report's table. Never: a clock.

use catlip_pipeline::feed::FeedStats;
use catlip_pipeline::metrics::{PrepLog, StageMeter};

use crate::plan::TrainPlan;
use crate::report::StageTime;

/// The stages of a run, measured.
#[derive(Debug, Default)]
pub(super) struct Meters {
    pub images: u64,
    pub copy: StageMeter,
    pub step: StageMeter,
    pub evaluate: StageMeter,
    pub save: StageMeter,
}

/// How long each stage of the run took, those of its data before.
pub(super) fn stage_times(
    plan: &TrainPlan,
    meters: &Meters,
    fed: Option<&FeedStats>,
) -> Vec<StageTime> {
    let eval_rows = plan.eval.as_ref().map_or(0, |eval| eval.num_rows);
    let evaluated = meters.evaluate.items() * eval_rows;
    let stage = |name: &str, meter: &StageMeter, images| StageTime {
        name: name.to_owned(),
        images,
        busy_secs: meter.busy().as_secs_f64(),
        num_threads: 1,
    };
    let mut stages: Vec<_> = plan.prep_logs.iter().flat_map(prep_times).collect();
    if let Some(fed) = fed {
        stages.push(StageTime {
            name: "decode, crop, resize".to_owned(),
            images: fed.decoded,
            busy_secs: fed.decode_busy_secs,
            num_threads: plan.feed.decode_threads,
        });
        stages.push(StageTime {
            name: "wait for a batch".to_owned(),
            images: meters.images,
            busy_secs: fed.wait_secs,
            num_threads: 1,
        });
    }
    stages.push(stage("copy to the device", &meters.copy, meters.images));
    stages.push(stage("step", &meters.step, meters.images));
    stages.push(stage("evaluate", &meters.evaluate, evaluated));
    stages.push(stage("save", &meters.save, 0));
    stages
}

/// The stages of a prep job; each of its threads takes a sample through all of them.
fn prep_times(log: &PrepLog) -> impl Iterator<Item = StageTime> {
    log.stages.iter().map(|stage| StageTime {
        name: format!("prep: {}", stage.stage),
        // Whole files are written, not images.
        images: if stage.stage == "write" { log.rows } else { stage.items },
        busy_secs: stage.busy_secs,
        num_threads: log.threads,
    })
}
