//! What was unpacked, for programs.

use crate::Result;
use cofferdam_image::Report;
use serde_json::{Value, json};

/// One object: `{"layers":[…]}`, lowest layer first.
pub(crate) fn json(reports: &[Report]) -> Result<String> {
    let layers: Vec<Value> = reports.iter().map(layer).collect();
    Ok(serde_json::to_string(&json!({ "layers": layers }))?)
}

fn layer(report: &Report) -> Value {
    json!({
        "diff_id": report.diff_id.to_string(),
        "blob_digest": report.blob_digest.to_string(),
        "entries": report.entries,
        "bytes": report.bytes,
        "skipped": report.skipped.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "opaque_root": report.opaque_root,
    })
}
