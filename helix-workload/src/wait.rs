//! Waiting for a condition, with a deadline.

use std::time::{Duration, Instant};

/// The condition did not come true in time.
#[derive(Debug, thiserror::Error)]
#[error("after {waited:?} still waiting for {what}; last seen: {last}")]
pub struct TimedOut {
    /// What was waited for.
    pub what: String,
    /// For how long.
    pub waited: Duration,
    /// What the last look found instead.
    pub last: String,
}

const BETWEEN_LOOKS: Duration = Duration::from_millis(10);

/// Looks again and again until `look` gives a value; `Err` says what it saw instead.
pub fn until<T>(
    what: impl Into<String>,
    deadline: Duration,
    mut look: impl FnMut() -> Result<T, String>,
) -> Result<T, TimedOut> {
    let begun = Instant::now();
    loop {
        match look() {
            Ok(value) => return Ok(value),
            Err(last) if begun.elapsed() >= deadline => {
                return Err(TimedOut { what: what.into(), waited: begun.elapsed(), last });
            }
            Err(_) => std::thread::sleep(BETWEEN_LOOKS),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_returns_as_soon_as_the_condition_holds() {
        let mut looks = 0;
        let value = until("three looks", Duration::from_secs(60), || {
            looks += 1;
            if looks == 3 { Ok(looks) } else { Err(format!("{looks}")) }
        });
        assert_eq!(value.unwrap(), 3);
    }

    #[test]
    fn it_says_what_it_saw_last() {
        let error = until::<()>("rain", Duration::ZERO, || Err("sun".into())).unwrap_err().to_string();
        assert!(error.contains("rain") && error.contains("sun"), "{error}");
    }
}
