//! Which rank this is, as whoever started it says.
//!
//! In: variables by name, which `cli` reads: those of `torchrun`, of SLURM, or the plain ones. Out:
//! a [`Rendezvous`], or none where one process was started. Never: a rank that is guessed.

use super::{DistError, Rendezvous};

/// First port of a SLURM job that names none, and how many there are to choose from.
const SLURM_PORTS: [u64; 2] = [20_000, 20_000];

/// Reads the variables.
///
/// # Errors
///
/// [`DistError::Environment`] naming the variable that is absent or wrong.
pub fn read(
    variable: impl Fn(&'static str) -> Option<String>,
) -> Result<Option<Rendezvous>, DistError> {
    let [rank, size, local, attempt] = match (variable("RANK"), variable("SLURM_PROCID")) {
        (Some(_), _) => ["RANK", "WORLD_SIZE", "LOCAL_RANK", "TORCHELASTIC_RESTART_COUNT"],
        // A step of one task is one process, also when its allocation has more.
        (None, Some(_)) => {
            ["SLURM_PROCID", "SLURM_STEP_NUM_TASKS", "SLURM_LOCALID", "SLURM_RESTART_COUNT"]
        }
        (None, None) => return Ok(None),
    };
    let is_slurm = rank == "SLURM_PROCID";
    if is_slurm && variable(size).is_none_or(|tasks| tasks.trim() == "1") {
        return Ok(None);
    }
    let world_size = number(&variable, size, 1, u64::from(u32::MAX))? as u32;
    let rank = number(&variable, rank, 0, u64::from(world_size) - 1)? as u32;
    let local_rank = match variable(local) {
        Some(_) => number(&variable, local, 0, u64::from(world_size) - 1)? as u32,
        None => 0,
    };
    let host = match variable("MASTER_ADDR") {
        Some(host) => host,
        None if is_slurm => first_node(&variable)?,
        None => return Err(absent("MASTER_ADDR", "the host of rank 0")),
    };
    let port = match variable("MASTER_PORT") {
        None if is_slurm => {
            let [first, count] = SLURM_PORTS;
            first + number(&variable, "SLURM_JOB_ID", 0, u64::MAX)? % count
        }
        _ => number(&variable, "MASTER_PORT", 1, u64::from(u16::MAX))?,
    };
    Ok(Some(Rendezvous {
        rank,
        world_size,
        local_rank,
        host,
        port: port as u16,
        store_is_kept: variable("TORCHELASTIC_USE_AGENT_STORE").as_deref() == Some("True"),
        attempt: variable(attempt).unwrap_or_else(|| "0".to_owned()),
        address: variable("GLOO_SOCKET_IFNAME").unwrap_or_default(),
    }))
}

fn absent(variable: &'static str, expected: &str) -> DistError {
    DistError::Environment { variable, found: String::new(), expected: expected.to_owned() }
}

fn number(
    variable: impl Fn(&'static str) -> Option<String>,
    name: &'static str,
    least: u64,
    most: u64,
) -> Result<u64, DistError> {
    let found = variable(name).unwrap_or_default();
    match found.trim().parse() {
        Ok(number) if (least..=most).contains(&number) => Ok(number),
        _ => {
            let expected = format!("a whole number from {least} to {most}");
            Err(DistError::Environment { variable: name, found, expected })
        }
    }
}

/// The first of `node[03-07,12],other`.
fn first_node(variable: impl Fn(&'static str) -> Option<String>) -> Result<String, DistError> {
    let name = "SLURM_JOB_NODELIST";
    let list = variable(name).unwrap_or_default();
    let wrong = || absent(name, "a list of hosts, or MASTER_ADDR the host of rank 0");
    let end = list.find(['[', ',']).unwrap_or(list.len());
    let (stem, rest) = list.split_at(end);
    let node = match rest.strip_prefix('[') {
        Some(numbers) => {
            let end = numbers.find([',', '-', ']']).ok_or_else(wrong)?;
            format!("{stem}{}", &numbers[..end])
        }
        None => stem.to_owned(),
    };
    if node.is_empty() { Err(wrong()) } else { Ok(node) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(pairs: &[(&str, &str)]) -> Result<Option<Rendezvous>, String> {
        let find = |name: &str| pairs.iter().find(|(key, _)| *key == name);
        read(|name| find(name).map(|(_, value)| (*value).to_owned())).map_err(|e| e.to_string())
    }

    const PLAIN: [(&str, &str); 4] =
        [("RANK", "1"), ("WORLD_SIZE", "4"), ("MASTER_ADDR", "10.0.0.1"), ("MASTER_PORT", "29500")];

    #[test]
    fn a_process_of_its_own_is_no_rank() {
        assert_eq!(told(&[]).unwrap(), None);
        let alone = [("SLURM_PROCID", "0"), ("SLURM_STEP_NUM_TASKS", "1")];
        assert_eq!(told(&alone).unwrap(), None);
    }

    #[test]
    fn the_plain_variables_say_all() {
        let found = told(&PLAIN).unwrap().unwrap();
        assert_eq!((found.rank, found.world_size, found.local_rank), (1, 4, 0));
        assert_eq!((found.host.as_str(), found.port), ("10.0.0.1", 29500));
        assert!(!found.store_is_kept && found.attempt == "0");
    }

    #[test]
    fn under_torchrun_the_store_is_that_of_the_agent() {
        let more = [
            ("LOCAL_RANK", "1"),
            ("TORCHELASTIC_USE_AGENT_STORE", "True"),
            ("TORCHELASTIC_RESTART_COUNT", "2"),
        ];
        let found = told(&[&PLAIN[..], &more].concat()).unwrap().unwrap();
        assert!(found.store_is_kept);
        assert_eq!((found.attempt.as_str(), found.local_rank), ("2", 1));
    }

    #[test]
    fn slurm_names_ranks_and_the_first_node() {
        let job = |nodes| {
            [
                ("SLURM_PROCID", "5"),
                ("SLURM_STEP_NUM_TASKS", "8"),
                ("SLURM_LOCALID", "1"),
                ("SLURM_JOB_ID", "123456"),
                ("SLURM_JOB_NODELIST", nodes),
            ]
        };
        let found = told(&job("gpu[03-07,12],login1")).unwrap().unwrap();
        assert_eq!((found.rank, found.world_size, found.local_rank), (5, 8, 1));
        assert_eq!((found.host.as_str(), found.port), ("gpu03", 23_456));
        assert_eq!(told(&job("one,two")).unwrap().unwrap().host, "one");
        assert_eq!(told(&job("one")).unwrap().unwrap().host, "one");
        assert!(told(&job("")).unwrap_err().starts_with("SLURM_JOB_NODELIST is ``, expected"));
    }

    #[test]
    fn what_is_wrong_is_named_with_its_range() {
        let error = told(&[("RANK", "4"), ("WORLD_SIZE", "4")]).unwrap_err();
        assert_eq!(error, "RANK is `4`, expected a whole number from 0 to 3");
        assert_eq!(
            told(&PLAIN[..3]).unwrap_err(),
            "MASTER_PORT is ``, expected a whole number from 1 to 65535"
        );
        assert_eq!(
            told(&PLAIN[..2]).unwrap_err(),
            "MASTER_ADDR is ``, expected the host of rank 0"
        );
    }
}
