//! What `/proc` says about a process: CPU time and memory; and how many files it may open.

use std::time::Duration;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// CPU time and memory of one process.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// User and system time since the process started.
    pub cpu: Duration,
    /// Memory in use now.
    pub resident_bytes: u64,
    /// The most that was ever in use.
    pub peak_bytes: u64,
}

/// The process is gone or its files can't be read.
#[derive(Debug, thiserror::Error)]
#[error("process {pid} can't be observed: {reason}; is it still running?")]
pub struct ProcessError {
    /// Which process.
    pub pid: u32,
    /// What is wrong.
    pub reason: String,
}

/// Looks at one process.
pub fn usage(pid: u32) -> Result<Usage, ProcessError> {
    let failed = |reason: String| ProcessError { pid, reason };
    let read = |name: &str| {
        std::fs::read_to_string(format!("/proc/{pid}/{name}")).map_err(|error| failed(error.to_string()))
    };
    let cpu = cpu_from_stat(&read("stat")?).ok_or_else(|| failed("its stat file has another form".into()))?;
    let status = read("status")?;
    let memory = |field| kib_field(&status, field).ok_or_else(|| failed(format!("no {field} in its status")));
    Ok(Usage { cpu, resident_bytes: memory("VmRSS:")?, peak_bytes: memory("VmHWM:")? })
}

/// The sum over several processes; peaks are the largest of any.
pub fn usage_of_all(pids: &[u32]) -> Result<Usage, ProcessError> {
    let mut sum = Usage::default();
    for pid in pids {
        let one = usage(*pid)?;
        sum.cpu += one.cpu;
        sum.resident_bytes += one.resident_bytes;
        sum.peak_bytes = sum.peak_bytes.max(one.peak_bytes);
    }
    Ok(sum)
}

/// This process and those that it starts from now on may open as many files and sockets as the system lets them.
pub fn allow_open_files() -> std::io::Result<()> {
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit })?;
    Ok(())
}

/// What this process and the brokers have used.
#[derive(Debug, Clone, Copy)]
pub struct Used {
    /// This process.
    pub client: Usage,
    /// All brokers together, if their processes are known.
    pub brokers: Option<Usage>,
}

impl Used {
    /// Up to now; there are no brokers if no process is named.
    pub fn look(broker_pids: &[u32]) -> Result<Self, ProcessError> {
        let brokers = (!broker_pids.is_empty()).then(|| usage_of_all(broker_pids)).transpose()?;
        Ok(Self { client: usage(std::process::id())?, brokers })
    }

    /// CPU time since `before`; memory as it is now.
    pub fn since(self, before: Self) -> Self {
        let grown =
            |after: Usage, before: Usage| Usage { cpu: after.cpu.saturating_sub(before.cpu), ..after };
        let brokers = self.brokers.zip(before.brokers).map(|(after, before)| grown(after, before));
        Self { client: grown(self.client, before.client), brokers }
    }
}

/// Fields 14 and 15 count from behind the command, which may itself hold spaces and parentheses.
fn cpu_from_stat(stat: &str) -> Option<Duration> {
    let after_command = &stat[stat.rfind(')')? + 1..];
    let mut fields = after_command.split_ascii_whitespace().skip(11);
    let ticks = fields.next()?.parse::<u64>().ok()? + fields.next()?.parse::<u64>().ok()?;
    let per_second = rustix::param::clock_ticks_per_second().max(1);
    Some(Duration::from_secs_f64(ticks as f64 / per_second as f64))
}

/// The most memory that a process ever had counts from now on (`proc_pid_clear_refs(5)`).
///
/// # Errors
/// When the process is gone, or not one's own.
pub fn forget_peak(pid: u32) -> Result<(), ProcessError> {
    let failed = |source: std::io::Error| ProcessError { pid, reason: source.to_string() };
    std::fs::write(format!("/proc/{pid}/clear_refs"), "5").map_err(failed)
}

fn kib_field(status: &str, field: &str) -> Option<u64> {
    let line = status.lines().find(|line| line.starts_with(field))?;
    Some(line.split_ascii_whitespace().nth(1)?.parse::<u64>().ok()? * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_with_parentheses_do_not_shift_the_fields() {
        let stat = "7 (a) b (c)) S 1 2 3 4 5 6 7 8 9 10 150 50 0 0 20 0";
        let per_second = rustix::param::clock_ticks_per_second() as f64;
        assert_eq!(cpu_from_stat(stat), Some(Duration::from_secs_f64(200.0 / per_second)));
        assert_eq!(cpu_from_stat("nonsense"), None);
    }

    #[test]
    fn this_process_uses_memory() {
        let usage = usage(std::process::id()).unwrap();
        assert!(usage.resident_bytes > 0 && usage.peak_bytes >= usage.resident_bytes);
    }

    #[test]
    fn the_peak_is_forgotten() {
        let pid = std::process::id();
        let mut much = vec![1_u8; 200 << 20];
        much[100] = 2;
        let before = usage(pid).unwrap().peak_bytes;
        drop(std::hint::black_box(much));
        forget_peak(pid).unwrap();
        let after = usage(pid).unwrap().peak_bytes;
        assert!(after + (100 << 20) < before, "{before} and {after}");
    }

    #[test]
    fn as_many_files_may_be_opened_as_the_system_allows() {
        let maximum = getrlimit(Resource::Nofile).maximum;
        let fewer = Rlimit { current: maximum.map(|most| most - 1), maximum };
        setrlimit(Resource::Nofile, fewer).unwrap();
        allow_open_files().unwrap();
        assert_eq!(getrlimit(Resource::Nofile).current, maximum);
    }

    #[test]
    fn a_process_that_is_gone_is_an_error() {
        assert!(usage(u32::MAX).is_err());
        assert!(forget_peak(u32::MAX).is_err());
    }
}
