//! What is worth merging.

use super::CompactConfig;
use crate::store::compact::Candidate;

/// One merge.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Merge {
    /// The hour that all inputs are of.
    pub append_hour: i64,
    /// What is merged.
    pub inputs: Vec<Candidate>,
}

/// The next merge of an hour's published files, if there is one worth doing.
///
/// Staged files come first, oldest first, once the hour is closed or there are many; then small
/// compacted files of one fleet, once the hour is closed.
pub fn next(hour: i64, files: &[Candidate], now_ms: i64, config: &CompactConfig) -> Option<Merge> {
    let merge = |mut inputs: Vec<Candidate>| {
        inputs.truncate(config.files_max);
        Some(Merge { append_hour: hour, inputs })
    };
    let is_closed = is_closed(hour, files, now_ms, config);
    let mut staged: Vec<Candidate> = files.iter().filter(|f| !f.compacted).cloned().collect();
    staged.sort_by_key(|file| (-file.published_ago_ms, file.file_id));
    if (is_closed && !staged.is_empty()) || staged.len() >= config.files_max {
        return merge(staged);
    }
    if !is_closed {
        return None;
    }
    let small = small_rows(config);
    let compacted: Vec<&Candidate> =
        files.iter().filter(|f| f.compacted && f.rows < small).collect();
    let same_fleet = compacted.iter().find_map(|file| {
        let same: Vec<Candidate> =
            compacted.iter().filter(|f| f.fleets == file.fleets).map(|f| (*f).clone()).collect();
        (same.len() > 1).then_some(same)
    });
    same_fleet.and_then(merge)
}

/// A compacted file with less rows is worth merging with others.
pub fn small_rows(config: &CompactConfig) -> i64 {
    i64::try_from(config.file_rows_max / 2).unwrap_or(i64::MAX)
}

fn is_closed(hour: i64, files: &[Candidate], now_ms: i64, config: &CompactConfig) -> bool {
    const HOUR_MS: i64 = 3_600_000;
    let signed = |ms: u64| i64::try_from(ms).unwrap_or(i64::MAX);
    let end_ms = hour.saturating_add(1).saturating_mul(HOUR_MS);
    let newest_ago_ms = files.iter().map(|file| file.published_ago_ms).min().unwrap_or(0);
    now_ms >= end_ms.saturating_add(signed(config.hour_grace_ms))
        && newest_ago_ms >= signed(config.settle_ms)
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    const HOUR: i64 = 100;
    const END_MS: i64 = 101 * 3_600_000;

    fn file(id: u128, compacted: bool, rows: i64, ago_ms: i64) -> Candidate {
        Candidate {
            file_id: Uuid::from_u128(id),
            path: format!("{id}"),
            bytes: 1,
            rows,
            append_hour: HOUR,
            compacted,
            published_ago_ms: ago_ms,
            fleets: vec!["press".into()],
        }
    }

    fn config() -> CompactConfig {
        CompactConfig { files_max: 3, file_rows_max: 1_000, ..CompactConfig::default() }
    }

    fn planned(files: &[Candidate], now_ms: i64) -> Option<Vec<u128>> {
        let merge = next(HOUR, files, now_ms, &config())?;
        Some(merge.inputs.iter().map(|file| file.file_id.as_u128()).collect())
    }

    #[test]
    fn an_hour_is_compacted_when_it_is_over_and_quiet() {
        let late = END_MS + 300_000;
        let files = [file(1, false, 10, 120_000), file(2, false, 10, 500_000)];
        assert_eq!(planned(&files, late - 1), None, "the hour may not be over for everybody");
        assert_eq!(planned(&files, late), Some(vec![2, 1]));
        let busy = [file(1, false, 10, 119_999), file(2, false, 10, 500_000)];
        assert_eq!(planned(&busy, late), None, "a writer is catching up");
        assert_eq!(planned(&[], late), None);
    }

    #[test]
    fn many_files_are_merged_while_the_hour_is_open() {
        let files: Vec<_> = (1..=4).map(|n| file(n, false, 10, n as i64)).collect();
        assert_eq!(planned(&files[..2], 0), None);
        assert_eq!(planned(&files, 0), Some(vec![4, 3, 2]));
    }

    #[test]
    fn small_compacted_files_of_a_fleet_become_one_and_then_rest() {
        let late = END_MS + 300_000;
        let mut files = vec![
            file(1, true, 499, 200_000),
            file(2, true, 500, 200_000),
            file(3, true, 5, 200_000),
        ];
        assert_eq!(planned(&files, late), Some(vec![1, 3]));
        files.remove(2);
        assert_eq!(planned(&files, late), None);
        files.push(Candidate { fleets: vec!["mill".into()], ..file(4, true, 5, 200_000) });
        assert_eq!(planned(&files, late), None);
    }
}
