//! Why ranks cannot work together. Facts only.

/// Why ranks cannot work together.
#[derive(Debug, thiserror::Error)]
pub enum DistError {
    /// A variable of the environment that says which rank this is.
    #[error("{variable} is `{found}`, expected {expected}")]
    Environment {
        /// The variable.
        variable: &'static str,
        /// What it holds; empty if it is not set.
        found: String,
        /// What it should hold.
        expected: String,
    },
    /// The ranks did not come together.
    #[error("rank {rank} of {world_size} cannot join at {host}:{port}: {reason}")]
    Join {
        /// This rank.
        rank: u32,
        /// Of how many.
        world_size: u32,
        /// Host of the store.
        host: String,
        /// Its port.
        port: u16,
        /// What c10d says.
        reason: String,
    },
    /// A collective failed, and who is to blame is known.
    #[error("rank {rank} of {world_size} cannot {what}: {}: {reason}", gone(.lost))]
    Lost {
        /// This rank.
        rank: u32,
        /// Of how many.
        world_size: u32,
        /// What was tried.
        what: &'static str,
        /// The ranks that do not answer any more.
        lost: Vec<u32>,
        /// What c10d says.
        reason: String,
    },
    /// A rank other than this one failed and said so.
    #[error("rank {rank} of {world_size} stops, because {failed} of the others failed to {what}")]
    Elsewhere {
        /// This rank.
        rank: u32,
        /// Of how many.
        world_size: u32,
        /// How many failed.
        failed: u32,
        /// What was tried.
        what: &'static str,
    },
    /// Weights that should be the same on every rank are not.
    #[error(
        "at step {step} the weights of {} differ from those of the other {agreeing} of \
         {world_size}: its memory or device is at fault",
        numbered(.ranks)
    )]
    Diverged {
        /// After which step.
        step: u64,
        /// The ranks whose weights differ from those of most.
        ranks: Vec<u32>,
        /// How many agree.
        agreeing: u32,
        /// Of how many.
        world_size: u32,
    },
    /// NCCL cannot be used.
    #[error("rank {rank} cannot use NCCL: {reason}")]
    Nccl {
        /// This rank.
        rank: u32,
        /// Why.
        reason: String,
    },
}

fn numbered(ranks: &[u32]) -> String {
    let numbers: Vec<_> = ranks.iter().map(u32::to_string).collect();
    format!("rank{} {}", if ranks.len() == 1 { "" } else { "s" }, numbers.join(", "))
}

fn gone(lost: &[u32]) -> String {
    match lost.len() {
        0 => "all ranks answer".to_owned(),
        1 => format!("{} is gone or stands still", numbered(lost)),
        _ => format!("{} are gone or stand still", numbered(lost)),
    }
}
