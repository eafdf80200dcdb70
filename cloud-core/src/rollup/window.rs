//! Windows: whole minutes, hours and days in UTC, named by their start in µs since the Unix epoch.

/// A minute, µs.
pub const MINUTE: i64 = 60_000_000;

/// An hour, µs.
pub const HOUR: i64 = 60 * MINUTE;

/// A day, µs.
pub const DAY: i64 = 24 * HOUR;

/// The start of the window of this length that holds the time. Times before 1970 too.
pub const fn floor(time: i64, length: i64) -> i64 {
    match time.checked_sub(time.rem_euclid(length)) {
        Some(start) => start,
        // Within one window of the least time there is.
        None => i64::MIN,
    }
}

/// The start of the minute that holds the time.
pub const fn minute_of(time: i64) -> i64 {
    floor(time, MINUTE)
}

/// The start of the hour that holds the time.
pub const fn hour_of(time: i64) -> i64 {
    floor(time, HOUR)
}

/// The start of the day that holds the time.
pub const fn day_of(time: i64) -> i64 {
    floor(time, DAY)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_holds_its_start_and_not_its_end() {
        for window in [MINUTE, HOUR, DAY] {
            for start in [-3 * window, -window, 0, 7 * window] {
                assert_eq!(floor(start, window), start);
                assert_eq!(floor(start + window - 1, window), start);
                assert_eq!(floor(start - 1, window), start - window);
            }
        }
        assert_eq!(minute_of(i64::MIN), i64::MIN);
        assert_eq!(day_of(1_767_312_000_000_001), 1_767_312_000_000_000);
        assert_eq!(hour_of(1_767_315_599_999_999), 1_767_312_000_000_000);
    }
}
