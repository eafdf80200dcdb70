//! Windows: minutes, hours and days of UTC, named by their begin in µs since the Unix epoch.

/// A minute, µs.
pub const MINUTE: i64 = 60 * 1_000_000;
/// An hour, µs.
pub const HOUR: i64 = 60 * MINUTE;
/// A day, µs.
pub const DAY: i64 = 24 * HOUR;

/// The begin of the minute that holds a time.
pub const fn minute(time: i64) -> i64 {
    begin(time, MINUTE)
}

/// The begin of the hour that holds a time.
pub const fn hour(time: i64) -> i64 {
    begin(time, HOUR)
}

/// The begin of the day that holds a time.
pub const fn day(time: i64) -> i64 {
    begin(time, DAY)
}

const fn begin(time: i64, width: i64) -> i64 {
    time.saturating_sub(time.rem_euclid(width))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_begin_at_or_before_their_times_on_both_sides_of_1970() {
        assert_eq!((minute(59_999_999), minute(60_000_000)), (0, MINUTE));
        assert_eq!((minute(-1), hour(-1), day(-1)), (-MINUTE, -HOUR, -DAY));
        assert_eq!((hour(DAY + HOUR), day(DAY + HOUR)), (DAY + HOUR, DAY));
    }
}
