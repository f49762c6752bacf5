//! Ranks: processes that take the steps of one run together.
//!
//! In: which rank this is, and where all meet. Out: a [`World`]: sums, gathered numbers, errors
//! that name the rank at fault. Never: reads the environment, which is `cli`'s; calls the shim
//! where there is one rank.

use std::cell::{Cell, OnceCell};
use std::collections::BTreeMap;
use std::thread;
use std::time::{Duration, Instant};

use sha2::{Digest, Sha256};
use tch::{Device, Kind, TchError, Tensor};

pub use self::error::DistError;
pub use self::together::Together;
use crate::error::TrainError;
use crate::model::Weights;
use crate::shim::c10d::is_loopback;
use crate::shim::c10d::{Link, NcclLibrary, Pending, Reduction, Seat};

pub(crate) mod error;
pub mod rendezvous;
mod together;

/// How often a rank looks whether the others gave up too.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// How long the keeper of the store stays for those who still ask it, after all have given up.
const KEEP_STORE: Duration = Duration::from_secs(2);
/// Bytes of a hash that travel: whole numbers below 2⁴⁸ are exact as doubles.
const HASH_BYTES: usize = 6;

/// Which rank this is, and where all meet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rendezvous {
    /// This rank.
    pub rank: u32,
    /// Of how many.
    pub world_size: u32,
    /// This rank among those of its machine: which device it takes.
    pub local_rank: u32,
    /// Host of the store.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// Whether whoever started the ranks keeps the store; else rank 0 does.
    pub store_is_kept: bool,
    /// Which start this is; part of every key in the store.
    pub attempt: String,
    /// Own address or interface; empty: found by itself.
    pub address: String,
}

/// The ranks of a run, seen from one of them.
#[derive(Debug)]
pub struct World {
    rank: u32,
    size: u32,
    local_rank: u32,
    keeps_store: bool,
    timeout: Duration,
    waited: Cell<Duration>,
    link: Option<Link>,
    /// Where it was joined, if there are others.
    at: Option<Rendezvous>,
    /// A second link, for sums in the midst of a backward pass: their order among those of the
    /// gradient differs from rank to rank.
    aside: OnceCell<Link>,
}

impl World {
    /// One rank.
    pub fn alone() -> Self {
        Self {
            rank: 0,
            size: 1,
            local_rank: 0,
            keeps_store: false,
            timeout: Duration::ZERO,
            waited: Cell::new(Duration::ZERO),
            link: None,
            at: None,
            aside: OnceCell::new(),
        }
    }

    /// Joins the others; waits for all of them, and for nothing longer than `timeout`.
    ///
    /// # Errors
    ///
    /// [`DistError::Join`].
    pub fn join(at: &Rendezvous, timeout: Duration) -> Result<Self, DistError> {
        let alone = Self { local_rank: at.local_rank, timeout, ..Self::alone() };
        if at.world_size == 1 {
            return Ok(alone);
        }
        let keeps_store = at.rank == 0 && !at.store_is_kept;
        let link = open(at, &format!("catlip/{}", at.attempt), keeps_store, timeout)?;
        Ok(Self {
            rank: at.rank,
            size: at.world_size,
            keeps_store,
            link: Some(link),
            at: Some(at.clone()),
            ..alone
        })
    }

    /// Lets the ranks sum tensors of `device` over NCCL, if that is a CUDA device and there are
    /// others; else they go through the host, over Gloo. All ranks do.
    ///
    /// # Errors
    ///
    /// [`DistError::Nccl`].
    pub fn add_device(&self, device: Device) -> Result<(), DistError> {
        let (Some(link), Device::Cuda(number)) = (&self.link, device) else { return Ok(()) };
        let seat = [self.rank, self.size];
        NcclLibrary::open()
            .and_then(|library| link.add_device(&library, seat, number, self.timeout))
            .map_err(|reason| DistError::Nccl { rank: self.rank, reason })
    }

    /// Opens the second link, over which [`Self::sum_aside`] sums. All ranks do.
    ///
    /// # Errors
    ///
    /// [`DistError::Join`].
    pub fn open_aside(&self) -> Result<(), DistError> {
        if let (Some(at), None) = (&self.at, self.aside.get()) {
            let link = open(at, &format!("catlip/{}/aside", at.attempt), false, self.timeout)?;
            _ = self.aside.set(link);
        }
        Ok(())
    }

    /// Sums `tensor` over the ranks in place, whatever sums of the gradient are under way. Needs
    /// [`Self::open_aside`] before.
    ///
    /// # Errors
    ///
    /// [`DistError::Lost`].
    ///
    /// # Panics
    ///
    /// If it was not: each rank would go on with a sum of its own.
    pub fn sum_aside(&self, tensor: &Tensor, what: &'static str) -> Result<(), DistError> {
        let Some(link) = self.aside.get() else {
            assert!(self.link.is_none(), "the second link was opened");
            return Ok(());
        };
        let summed = self.timed(|| link.reduce(tensor, Reduction::Sum)?.wait());
        summed.map_err(|reason| self.lost(what, reason))
    }

    /// This rank.
    pub fn rank(&self) -> u32 {
        self.rank
    }

    /// How many ranks there are.
    pub fn size(&self) -> u32 {
        self.size
    }

    /// This rank among those of its machine.
    pub fn local_rank(&self) -> u32 {
        self.local_rank
    }

    /// Whether this rank writes what the run writes once.
    pub fn is_first(&self) -> bool {
        self.rank == 0
    }

    /// How long this rank has waited for the others.
    pub fn waited(&self) -> Duration {
        self.waited.get()
    }

    /// Makes a collective of `link` and waits for its end.
    fn collect(
        &self,
        what: &'static str,
        begin: impl FnOnce(&Link) -> Result<Pending, String>,
    ) -> Result<(), DistError> {
        let Some(link) = &self.link else { return Ok(()) };
        self.timed(|| begin(link)?.wait()).map_err(|reason| self.lost(what, reason))
    }

    fn timed<T>(&self, wait: impl FnOnce() -> T) -> T {
        let start = Instant::now();
        let outcome = wait();
        self.waited.set(self.waited.get() + start.elapsed());
        outcome
    }

    /// After which a rank that does not answer is given up.
    pub fn timeout(&self) -> Duration {
        self.timeout
    }

    /// Sums `tensor` over the ranks in place.
    ///
    /// # Errors
    ///
    /// [`DistError::Lost`].
    pub fn sum(&self, tensor: &Tensor, what: &'static str) -> Result<(), DistError> {
        self.reduce(tensor, Reduction::Sum, what)
    }

    /// Takes the largest of each number of `tensor` over the ranks, in place.
    ///
    /// # Errors
    ///
    /// [`DistError::Lost`].
    pub fn max(&self, tensor: &Tensor, what: &'static str) -> Result<(), DistError> {
        self.reduce(tensor, Reduction::Max, what)
    }

    fn reduce(&self, tensor: &Tensor, by: Reduction, what: &'static str) -> Result<(), DistError> {
        self.collect(what, |link| link.reduce(tensor, by))
    }

    /// Sums numbers of the host over the ranks.
    ///
    /// # Errors
    ///
    /// [`DistError::Lost`].
    pub fn sums<const N: usize>(
        &self,
        numbers: [f64; N],
        what: &'static str,
    ) -> Result<[f64; N], TrainError> {
        if self.link.is_none() {
            return Ok(numbers);
        }
        let tensor = Tensor::from_slice(&numbers);
        self.sum(&tensor, what)?;
        let mut sums = [0.0; N];
        tensor.f_copy_data(&mut sums, N).map_err(TrainError::torch("read a sum"))?;
        Ok(sums)
    }

    /// A number of each rank, in their order.
    ///
    /// # Errors
    ///
    /// [`DistError::Lost`].
    pub fn gather(&self, number: f64, what: &'static str) -> Result<Vec<f64>, TrainError> {
        if self.link.is_none() {
            return Ok(vec![number]);
        }
        let size = self.size as usize;
        let part = Tensor::from_slice(&[number]);
        let whole = Tensor::zeros([size as i64], (Kind::Double, Device::Cpu));
        self.gather_parts(&whole, &part, what)?;
        let mut numbers = vec![0.0; size];
        whole.f_copy_data(&mut numbers, size).map_err(TrainError::torch("read numbers"))?;
        Ok(numbers)
    }

    /// Puts the equal `part`s of all ranks into `whole`, in their order.
    ///
    /// # Errors
    ///
    /// [`DistError::Lost`].
    pub fn gather_parts(
        &self,
        whole: &Tensor,
        part: &Tensor,
        what: &'static str,
    ) -> Result<(), DistError> {
        self.collect(what, |link| link.gather(whole, part))
    }

    /// Sums `whole` over the ranks, of which each keeps its `part`; equal parts.
    ///
    /// # Errors
    ///
    /// [`DistError::Lost`].
    pub fn scatter_sum(
        &self,
        part: &Tensor,
        whole: &Tensor,
        what: &'static str,
    ) -> Result<(), DistError> {
        self.collect(what, |link| link.scatter(part, whole))
    }

    /// Gives every rank the tensor of one.
    ///
    /// # Errors
    ///
    /// [`DistError::Lost`].
    pub fn broadcast(
        &self,
        tensor: &Tensor,
        from: u32,
        what: &'static str,
    ) -> Result<(), DistError> {
        self.collect(what, |link| link.broadcast(tensor, from))
    }

    /// Waits for the others; an error of one is an error of all.
    ///
    /// # Errors
    ///
    /// The outcome's own; [`DistError::Elsewhere`], [`DistError::Lost`].
    pub fn agree<T>(
        &self,
        outcome: Result<T, TrainError>,
        what: &'static str,
    ) -> Result<T, TrainError> {
        let failed = self.sums([f64::from(u8::from(outcome.is_err()))], what);
        let value = outcome?;
        match failed? {
            [0.0] => Ok(value),
            [failed] => {
                let (rank, world_size, failed) = (self.rank, self.size, failed as u32);
                Err(DistError::Elsewhere { rank, world_size, failed, what }.into())
            }
        }
    }

    /// Compares the weights of the ranks, which should be the same to the bit.
    ///
    /// # Errors
    ///
    /// [`DistError::Diverged`], naming the ranks that differ from most; [`DistError::Lost`].
    pub fn compare(&self, weights: &Weights, step: u64) -> Result<(), TrainError> {
        if self.link.is_none() {
            return Ok(());
        }
        let hash = hash_of(weights).map_err(TrainError::torch("hash the weights"))?;
        let hashes = self.gather(hash, "compare the weights")?;
        match minority(&hashes) {
            ranks if ranks.is_empty() => Ok(()),
            ranks => {
                let agreeing = self.size - ranks.len() as u32;
                Err(DistError::Diverged { step, ranks, agreeing, world_size: self.size }.into())
            }
        }
    }

    /// Finds out who is to blame for a collective that failed.
    ///
    /// Leaves the group first, so that whoever waits for this rank gives up too; who has given up
    /// says so in the store, and who does not is gone, or stands still.
    fn lost(&self, what: &'static str, reason: String) -> DistError {
        let lost = self.link.as_ref().map_or_else(Vec::new, |link| self.missing(link));
        DistError::Lost { rank: self.rank, world_size: self.size, what, lost, reason }
    }

    fn missing(&self, link: &Link) -> Vec<u32> {
        let key = |rank: u32| format!("gave-up/{rank}");
        // Reasons to fail here are those that are being looked into.
        if let Some(aside) = self.aside.get() {
            _ = aside.leave();
        }
        let said = link.leave().and_then(|()| link.set(&key(self.rank), what_it_is()));
        let deadline = Instant::now() + self.timeout;
        let mut missing: Vec<u32> = (0..self.size).filter(|&rank| rank != self.rank).collect();
        if said.is_err() && !self.keeps_store {
            // Rank 0 keeps the store; a store that another keeps stays when ranks go.
            return vec![0];
        }
        while missing.len() > 1 && Instant::now() < deadline {
            let mut still = Vec::new();
            for rank in missing {
                match link.has(&key(rank)) {
                    Ok(true) => {}
                    Ok(false) => still.push(rank),
                    Err(_) => return vec![0],
                }
            }
            missing = still;
            if missing.len() > 1 {
                thread::sleep(LOOK_EVERY);
            }
        }
        // The last one may be about to say so: it saw the connections close a moment ago.
        thread::sleep(4 * LOOK_EVERY);
        missing.retain(|&rank| !link.has(&key(rank)).unwrap_or(rank != 0));
        if self.keeps_store {
            thread::sleep(KEEP_STORE.min(self.timeout));
        }
        missing
    }
}

/// Takes a seat, and waits until all have: who has joined may still be a stranger to others, and
/// could leave before they know it.
fn open(
    at: &Rendezvous,
    prefix: &str,
    is_server: bool,
    timeout: Duration,
) -> Result<Link, DistError> {
    let loopback = if is_loopback(&at.host) { "127.0.0.1" } else { "" };
    let seat = Seat {
        host: &at.host,
        port: at.port,
        is_server,
        rank: at.rank,
        size: at.world_size,
        prefix,
        address: if at.address.is_empty() { loopback } else { &at.address },
        timeout,
    };
    let all_have_joined = |link: Link| {
        let nothing = Tensor::zeros([1], (Kind::Float, Device::Cpu));
        link.reduce(&nothing, Reduction::Sum)?.wait().map(|()| link)
    };
    Link::open(&seat).and_then(all_have_joined).map_err(|reason| DistError::Join {
        rank: at.rank,
        world_size: at.world_size,
        host: at.host.clone(),
        port: at.port,
        reason,
    })
}

/// What stands behind a key whose being there is all that counts.
fn what_it_is() -> &'static str {
    "1"
}

/// The first bytes of the SHA-256 of the trained weights, as a whole number.
fn hash_of(weights: &Weights) -> Result<f64, TchError> {
    let floats = weights.layout().trained_floats();
    let flat = weights.flat().f_narrow(0, 0, floats)?.f_to_device(Device::Cpu)?;
    let mut bytes = vec![0_u8; floats as usize * 4];
    flat.f_copy_data_u8(&mut bytes, floats as usize)?;
    let hash = Sha256::digest(&bytes);
    Ok(hash[..HASH_BYTES].iter().fold(0.0, |sum, &byte| sum * 256.0 + f64::from(byte)))
}

/// Who differs from most; where as many say one thing as another, those who differ from rank 0.
fn minority(hashes: &[f64]) -> Vec<u32> {
    let mut votes = BTreeMap::new();
    for hash in hashes {
        *votes.entry(hash.to_bits()).or_insert(0_usize) += 1;
    }
    let most = votes.values().copied().max().unwrap_or(0);
    let accepted = hashes.iter().map(|hash| hash.to_bits()).find(|bits| votes[bits] == most);
    let differs = |hash: &f64| Some(hash.to_bits()) != accepted;
    (0..).zip(hashes).filter(|(_, hash)| differs(hash)).map(|(rank, _)| rank).collect()
}

#[cfg(test)]
mod tests {
    use super::together::BucketPlan;
    use super::*;
    use crate::model::params::Gradient;
    use crate::model::params::{Init, Layout};
    use std::net::TcpListener;

    const TIMEOUT: Duration = Duration::from_secs(20);

    fn weights() -> Weights {
        let mut layout = Layout::default();
        layout.param("first".into(), &[2, 8], Init::Zeros);
        layout.param("second".into(), &[4, 8], Init::Zeros);
        layout.param("third".into(), &[16], Init::Zeros);
        layout.buffer("mean".into(), &[16], Init::Zeros);
        Weights::zeros(&layout.place(), Device::Cpu).unwrap()
    }

    fn free_port() -> u16 {
        TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
    }

    /// Runs `body` as each of `size` ranks, in threads; each is a rank of c10d's.
    fn ranks<T: Send>(size: u32, timeout: Duration, body: impl Fn(World) -> T + Sync) -> Vec<T> {
        let (port, body) = (free_port(), &body);
        thread::scope(|scope| {
            let start = |rank| {
                let at = Rendezvous {
                    rank,
                    world_size: size,
                    local_rank: rank,
                    host: "127.0.0.1".to_owned(),
                    port,
                    store_is_kept: false,
                    attempt: "0".to_owned(),
                    address: String::new(),
                };
                scope.spawn(move || body(World::join(&at, timeout).unwrap()))
            };
            let threads: Vec<_> = (0..size).map(start).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        })
    }

    /// What stands below the outcome that all faults of ranks have in common.
    fn fact(error: &TrainError) -> String {
        match error {
            TrainError::Dist(fact) => fact.to_string(),
            other => other.to_string(),
        }
    }

    #[test]
    fn one_rank_needs_nobody() {
        let world = World::alone();
        assert_eq!(world.sums([2.0, 3.0], "add").unwrap(), [2.0, 3.0]);
        assert_eq!(world.gather(4.0, "gather").unwrap(), [4.0]);
        world.compare(&weights(), 1).unwrap();
    }

    #[test]
    fn numbers_of_all_ranks_are_summed_gathered_and_compared_to_the_largest() {
        let told = ranks(3, TIMEOUT, |world| {
            let mine = f64::from(world.rank());
            let [sum] = world.sums([mine + 1.0], "add").unwrap();
            let tensor = Tensor::from_slice(&[mine as f32, -mine as f32]);
            world.max(&tensor, "take the largest").unwrap();
            let most = Vec::<f32>::try_from(tensor).unwrap();
            let seed = Tensor::from_slice(&[mine + 7.0]);
            world.broadcast(&seed, 0, "tell").unwrap();
            (sum, world.gather(mine, "gather").unwrap(), most, seed.double_value(&[0]))
        });
        for (sum, all, most, seed) in told {
            assert_eq!((sum, &all[..], seed), (6.0, &[0.0, 1.0, 2.0][..], 7.0));
            assert_eq!(most, [2.0, 0.0]);
        }
    }

    #[test]
    fn parts_are_scattered_and_gathered_in_the_order_of_ranks() {
        ranks(2, TIMEOUT, |world| {
            let cpu = (Kind::Float, Device::Cpu);
            let (whole, part) = (Tensor::arange(4, cpu), Tensor::zeros([2], cpu));
            world.scatter_sum(&part, &whole, "scatter").unwrap();
            let first = 4.0 * f64::from(world.rank());
            assert_eq!(part.double_value(&[0]), first);
            world.gather_parts(&whole, &part, "gather").unwrap();
            assert_eq!(Vec::<f32>::try_from(&whole).unwrap(), [0.0, 2.0, 4.0, 6.0]);
        });
    }

    /// Where there is no CUDA device, libtorch's half that it calls is not there either.
    #[test]
    fn nccl_is_not_opened_without_what_it_calls() {
        if tch::Cuda::is_available() {
            println!("skipped: here is a CUDA device");
            return;
        }
        World::alone().add_device(Device::Cuda(0)).unwrap();
        let reason = NcclLibrary::open().unwrap_err();
        let is_clear = reason.contains("undefined symbol") || reason.contains("without NCCL");
        assert!(is_clear, "{reason}");
    }

    #[test]
    fn sums_aside_do_not_wait_for_the_order_of_others() {
        ranks(2, TIMEOUT, |world| {
            world.open_aside().unwrap();
            let (one, two) = (Tensor::from_slice(&[1.0_f32]), Tensor::from_slice(&[2.0_f32]));
            let link = world.link.as_ref().unwrap();
            if world.rank() == 0 {
                let pending = link.reduce(&one, Reduction::Sum).unwrap();
                world.sum_aside(&two, "sum").unwrap();
                pending.wait().unwrap();
            } else {
                world.sum_aside(&two, "sum").unwrap();
                link.reduce(&one, Reduction::Sum).unwrap().wait().unwrap();
            }
            assert_eq!((one.double_value(&[0]), two.double_value(&[0])), (2.0, 4.0));
        });
    }

    #[test]
    fn a_rank_that_leaves_is_named_by_all_others() {
        let errors = ranks(4, TIMEOUT, |world| {
            if world.rank() == 2 {
                // Its process would end here: its connections close.
                return None;
            }
            Some(fact(&world.sums([1.0], "sum the gradients").unwrap_err()))
        });
        assert!(errors[2].is_none());
        for (rank, error) in errors.iter().enumerate().filter(|(rank, _)| *rank != 2) {
            let error = error.as_deref().unwrap();
            let expected = format!(
                "rank {rank} of 4 cannot sum the gradients: rank 2 is gone or stands still: "
            );
            assert!(error.starts_with(&expected), "{error}");
        }
    }

    #[test]
    fn a_rank_that_stands_still_is_named_after_the_timeout() {
        let errors = ranks(2, Duration::from_secs(2), |world| {
            if world.rank() == 1 {
                thread::sleep(Duration::from_secs(6));
                return None;
            }
            Some(fact(&world.gather(1.0, "gather").unwrap_err()))
        });
        let error = errors[0].as_deref().unwrap();
        assert!(error.contains("rank 1 is gone or stands still"), "{error}");
    }

    #[test]
    fn an_error_of_one_rank_is_an_error_of_all() {
        let told = ranks(2, TIMEOUT, |world| {
            let path = std::path::PathBuf::from("there");
            let outcome = match world.rank() {
                0 => Err(TrainError::NoRun { path }),
                _ => Ok(()),
            };
            fact(&world.agree(outcome, "begin the run").unwrap_err())
        });
        assert_eq!(told[0], "there holds no run: it has no config.toml");
        let expected = "rank 1 of 2 stops, because 1 of the others failed to begin the run";
        assert_eq!(told[1], expected);
    }

    #[test]
    fn a_flipped_bit_in_the_weights_of_a_rank_names_it() {
        let told = ranks(3, TIMEOUT, |world| {
            let weights = weights();
            world.compare(&weights, 4).unwrap();
            if world.rank() == 1 {
                _ = weights.flat().narrow(0, 17, 1).fill_(1e-30);
            }
            fact(&world.compare(&weights, 5).unwrap_err())
        });
        for error in told {
            assert!(
                error.starts_with(
                    "at step 5 the weights of rank 1 differ from those of the other 2 of 3"
                ),
                "{error}"
            );
        }
    }

    #[test]
    fn the_minority_differs_from_most_or_from_rank_0() {
        assert!(minority(&[1.0, 1.0]).is_empty());
        assert_eq!(minority(&[2.0, 1.0, 1.0]), [0]);
        assert_eq!(minority(&[2.0, 1.0]), [1]);
    }

    #[test]
    fn stretches_cover_the_gradient_from_its_end_on() {
        let plan = BucketPlan::new(&weights(), 100);
        assert_eq!(plan.stretches, [(16, 48), (0, 16)]);
        assert_eq!(plan.leaves, [2, 1, 0]);
        assert_eq!(plan.bucket_of, [0, 0, 1]);
        assert_eq!(BucketPlan::new(&weights(), 1 << 20).stretches, [(0, 64)]);
    }

    /// Ranks of which one has no row: its leaves never have gradients.
    #[test]
    fn gradients_are_summed_during_the_backward_pass_whatever_each_rank_has() {
        let told = ranks(2, TIMEOUT, |world| {
            let weights = weights();
            let gradient = Gradient::attach(&weights).unwrap();
            let plan = BucketPlan::new(&weights, 100);
            let buckets = world.buckets(&weights, &gradient, &plan).unwrap().unwrap();
            let mut sums = Vec::new();
            for step in 1..=3 {
                gradient.zero().unwrap();
                buckets.begin();
                if world.rank() == 0 || step == 3 {
                    let loss = weights.entries().fold(Tensor::from(0.0), |loss, (_, leaf)| {
                        if leaf.requires_grad() { loss + leaf.sum(Kind::Float) } else { loss }
                    });
                    (loss * f64::from(step)).backward();
                }
                world.finish(&buckets).unwrap();
                sums.push(gradient.flat().mean(Kind::Float).double_value(&[]));
            }
            sums
        });
        assert_eq!(told, [[1.0, 2.0, 6.0], [1.0, 2.0, 6.0]]);
    }
}
