//! Times as people read them.

use std::time::Duration;

use jiff::Timestamp;

/// How long ago, in one unit, as kubectl says it: `45s`, `12m`, `5h`, `3d`.
pub(crate) fn age(since: Option<Timestamp>, now: Timestamp) -> String {
    let Some(since) = since else { return "-".to_owned() };
    let seconds = now.duration_since(since).as_secs().max(0);
    match seconds {
        0..120 => format!("{seconds}s"),
        120..7200 => format!("{}m", seconds / 60),
        7200..172_800 => format!("{}h", seconds / 3600),
        _ => format!("{}d", seconds / 86_400),
    }
}

/// A short time: `12.3 ms`, `1.2 s`.
pub(crate) fn took(duration: Duration) -> String {
    if duration < Duration::from_secs(1) {
        format!("{:.1} ms", duration.as_secs_f64() * 1000.0)
    } else {
        format!("{:.1} s", duration.as_secs_f64())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_have_one_unit() {
        let at = |second: i64| Timestamp::from_second(second).unwrap();
        for (seconds, text) in [
            (-5, "0s"),
            (119, "119s"),
            (120, "2m"),
            (7199, "119m"),
            (7200, "2h"),
            (172_800, "2d"),
        ] {
            assert_eq!(age(Some(at(0)), at(seconds)), text);
        }
        assert_eq!(age(None, at(0)), "-");
    }

    #[test]
    fn short_times_have_a_decimal() {
        assert_eq!(took(Duration::from_micros(12_340)), "12.3 ms");
        assert_eq!(took(Duration::from_millis(1250)), "1.2 s");
    }
}
