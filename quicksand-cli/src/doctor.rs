//! `quicksand doctor`: what machines need of this host.

use std::process::ExitCode;

use quicksand_core::diagnosis::{Finding, Verdict, examine};
use serde_json::{Value, json};

use crate::{args::DoctorArgs, exit, failure::Result, show};

/// Checks this host. Fails where no machine runs here.
pub(crate) async fn doctor(args: &DoctorArgs) -> Result {
    let findings = examine().await;
    if args.json {
        show::json(&findings.iter().map(value).collect())?;
    } else {
        show::print(&findings.iter().map(line).collect::<String>())?;
    }
    let bad = findings.iter().any(|finding| finding.verdict == Verdict::Bad);
    Ok(ExitCode::from(if bad { exit::FAILURE } else { exit::SUCCESS }))
}

fn word(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Good => "good",
        Verdict::Poor => "poor",
        Verdict::Bad => "bad",
    }
}

fn line(finding: &Finding) -> String {
    let mend = finding.mend.as_ref().map(|mend| format!("\n        mend: {mend}")).unwrap_or_default();
    format!("{:5} {}: {}{mend}\n", word(finding.verdict), finding.what, finding.detail)
}

fn value(finding: &Finding) -> Value {
    json!({
        "what": finding.what,
        "verdict": word(finding.verdict),
        "detail": finding.detail,
        "mend": finding.mend,
    })
}
