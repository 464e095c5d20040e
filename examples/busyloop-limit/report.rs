//! What came of it.

use crate::measure::Phase;
use crate::stop::Stop;
use cofferdam_cgroups::Layout;
use serde::Serialize;
use std::io::Write;

/// The result; as JSON its public part.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    layout: String,
    limit_percent: f64,
    expected_percent: f64,
    unlimited_percent: f64,
    limited_percent: f64,
    nr_throttled: u64,
    #[serde(skip)]
    nr_periods: u64,
    #[serde(skip)]
    has_effect: bool,
}

impl Report {
    /// Limit and what is possible are in cores.
    pub(crate) fn new(layout: Layout, limit: f64, possible: f64, unlimited: &Phase, limited: &Phase) -> Self {
        Report {
            layout: layout.to_string(),
            limit_percent: rounded(limit * 100.0),
            expected_percent: rounded(limit.min(possible) * 100.0),
            unlimited_percent: rounded(unlimited.percent),
            limited_percent: rounded(limited.percent),
            nr_throttled: limited.throttled,
            nr_periods: limited.periods,
            has_effect: limit < possible,
        }
    }

    /// Within 3 points or 10 %, whichever is larger. A limit without effect holds nothing, and cannot fail to.
    pub(crate) fn is_held(&self) -> bool {
        let tolerance = (self.expected_percent * 0.1).max(3.0);
        !self.has_effect || self.deviation().abs() <= tolerance
    }

    /// In points; never "-0".
    fn deviation(&self) -> f64 {
        rounded(self.limited_percent - self.expected_percent) + 0.0
    }

    pub(crate) fn write_json(&self, out: &mut impl Write) -> Result<(), Stop> {
        let text = serde_json::to_string(self).map_err(|error| Stop::Failed(error.to_string()))?;
        Ok(writeln!(out, "{text}")?)
    }

    pub(crate) fn summary(&self) -> String {
        let mut text = format!(
            "\nunlimited  {:6.1} %\nlimited    {:6.1} %\nasked      {:6.1} %\ndeviation  {:+6.1} points from {:.1} %\n\
             throttled  {:6} of {} periods",
            self.unlimited_percent,
            self.limited_percent,
            self.limit_percent,
            self.deviation(),
            self.expected_percent,
            self.nr_throttled,
            self.nr_periods,
        );
        if !self.is_held() {
            text += "\nNOT HELD: more than 3 points, or 10 %, away";
            // Who is not throttled did not get as far as the limit.
            if self.deviation() < 0.0 && self.nr_throttled * 2 < self.nr_periods {
                text += "; other programs took the CPUs";
            }
        }
        text
    }
}

fn rounded(percent: f64) -> f64 {
    (percent * 100.0).round() / 100.0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(limit: f64, possible: f64, limited: f64) -> Report {
        let used = |percent, throttled| Phase { percent, periods: 20, throttled };
        Report::new(Layout::Hybrid, limit, possible, &used(possible * 99.0, 0), &used(limited, 19))
    }

    #[test]
    fn three_points_or_ten_percent() {
        for (limit, limited, held) in [
            (0.2, 23.0, true),
            (0.2, 23.1, false),
            (0.2, 17.0, true),
            (0.2, 16.9, false),
            (1.5, 165.0, true),
            (1.5, 165.1, false),
            (1.5, 134.9, false),
        ] {
            assert_eq!(report(limit, 2.0, limited).is_held(), held, "{limit}: {limited}");
        }
    }

    #[test]
    fn a_limit_that_nothing_reaches_cannot_fail() {
        let report = report(8.0, 2.0, 120.0);
        assert!(report.is_held());
        assert!((report.expected_percent - 200.0).abs() < 1e-9);
    }

    #[test]
    fn json_is_one_line_of_six_fields() {
        let mut out = Vec::new();
        report(0.2, 2.0, 20.1234).write_json(&mut out).unwrap();
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "{\"layout\":\"hybrid\",\"limit_percent\":20.0,\"expected_percent\":20.0,\"unlimited_percent\":198.0,\
             \"limited_percent\":20.12,\"nr_throttled\":19}\n"
        );
    }

    #[test]
    fn the_summary_says_what_went_wrong() {
        assert!(!report(0.2, 2.0, 20.0).summary().contains("NOT HELD"));
        assert!(report(0.2, 2.0, 30.0).summary().ends_with("away"));
        let mut starved = report(1.5, 2.0, 90.0);
        starved.nr_throttled = 2;
        assert!(starved.summary().ends_with("other programs took the CPUs"));
    }
}
