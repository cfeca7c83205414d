//! The report as text.

use std::fmt::{self, Write};

use super::{FaultSummary, IdleStep, MemoryCourse, RunReport, RunVerdict};
use crate::{
    latency::Percentiles,
    process::{MemoryPerConnection, ProcessMemory},
};

/// Formats a report.
pub fn format(report: &RunReport) -> String {
    let mut out = String::new();
    write(report, &mut out).expect("writing to a string does not fail");
    out
}

fn write(report: &RunReport, out: &mut String) -> fmt::Result {
    let RunReport {
        counts,
        violations,
        latency,
        ..
    } = report;
    let verdict = match report.verdict {
        RunVerdict::Kept => "every promise was kept",
        RunVerdict::Broken => "A PROMISE WAS BROKEN",
        RunVerdict::Unproven => "NOTHING IS PROVEN, see the errors",
    };
    writeln!(out, "{}: {verdict}\n", report.scenario)?;
    writeln!(
        out,
        "messages    {} sent, {} acknowledged, {} rate limited, {} unknown, {} listed afterwards",
        counts.sent, counts.acknowledged, counts.rate_limited, counts.unknown, counts.listed
    )?;
    writeln!(
        out,
        "deliveries  {}, frames of {} bytes; {} gaps, {} reconnects",
        counts.delivered, counts.frame_bytes, counts.gaps_told, counts.reconnects
    )?;
    if let Some(FaultSummary { seed, struck }) = &report.faults {
        let by_kind: Vec<String> = struck
            .iter()
            .map(|(fault, count)| format!("{count} {fault}"))
            .collect();
        writeln!(
            out,
            "faults      {}: {} (--seed {seed})",
            struck.values().sum::<u64>(),
            by_kind.join(", ")
        )?;
    }
    writeln!(
        out,
        "violations  {} lost, {} doubled, {} reordered, {} foreign, {} holes, {} altered, {} after removal, {} undeleted, {} needless gaps, {} denied",
        violations.lost,
        violations.doubled,
        violations.reordered,
        violations.foreign,
        violations.holes,
        violations.altered,
        violations.after_removal,
        violations.undeleted,
        violations.needless,
        violations.denied
    )?;
    writeln!(
        out,
        "rates       {:.0} messages/s, {:.0} deliveries/s over {:.1} s; {} connections in {:.1} s\n",
        report.messages_per_second,
        report.deliveries_per_second,
        report.seconds,
        counts.connections,
        report.connect_seconds
    )?;
    writeln!(
        out,
        "{:<16}{:>10}{:>10}{:>10}{:>10}{:>10}{:>11}",
        "milliseconds", "p50", "p90", "p99", "p99.9", "max", "count"
    )?;
    row(out, "delivery", latency.delivery)?;
    row(out, "acknowledgement", latency.acknowledgement)?;
    row(out, "connecting", latency.connecting)?;
    latency
        .own_lag
        .map_or(Ok(()), |lag| row(out, "own lag", lag))?;
    if let Some(sync) = report.disk_sync {
        row(out, "disk sync", sync)?;
    }
    write_costs(report, out)?;
    write_steps(&report.steps, out)?;
    if !report.troubles.is_empty() {
        writeln!(out, "\nerrors")?;
        report
            .troubles
            .iter()
            .try_for_each(|(error, count)| writeln!(out, "{count:>8} × {error}"))?;
    }
    if !report.evidence.is_empty() {
        writeln!(out, "\nevidence")?;
        report
            .evidence
            .iter()
            .try_for_each(|evidence| writeln!(out, "  {evidence}"))?;
    }
    Ok(())
}

fn row(out: &mut String, name: &str, percentiles: Percentiles) -> fmt::Result {
    let Percentiles {
        count,
        p50_ms,
        p90_ms,
        p99_ms,
        p99_9_ms,
        max_ms,
        ..
    } = percentiles;
    writeln!(
        out,
        "{name:<16}{p50_ms:>10.2}{p90_ms:>10.2}{p99_ms:>10.2}{p99_9_ms:>10.2}{max_ms:>10.2}{count:>11}"
    )
}

/// Writes a table of the figures beside each number of idle users.
fn write_steps(steps: &[IdleStep], out: &mut String) -> fmt::Result {
    if steps.is_empty() {
        return Ok(());
    }
    writeln!(
        out,
        "\n{:>10} | {:>26} | {:>27} | {:>36}",
        "idle users",
        "delivery p50, p99, p99.9 ms",
        "acknowledged p50, p99, p99.9",
        "per second while nobody sends"
    )?;
    for step in steps {
        let latencies = |found: Percentiles| {
            format!(
                "{:.2} / {:.2} / {:.2}",
                found.p50_ms, found.p99_ms, found.p99_9_ms
            )
        };
        let node = step.idle_costs.node_cpu_ms_per_second;
        let redis = step.idle_costs.redis;
        let costs = [
            node.map(|cpu| format!("node {cpu:.1} ms")),
            redis.map(|redis| {
                format!(
                    "Redis {:.1} ms, {:.0} commands, {:.0} scripts",
                    redis.cpu_ms, redis.commands, redis.scripts
                )
            }),
            step.idle_costs.memory.map(|[start, end]| {
                format!(
                    "{:.1} KB, then {:.1} KB a user",
                    start.anonymous / 1e3,
                    end.anonymous / 1e3
                )
            }),
        ];
        let costs: Vec<String> = costs.into_iter().flatten().collect();
        writeln!(
            out,
            "{:>10} | {:>26} | {:>27} | {}",
            step.idle_users,
            latencies(step.delivery),
            latencies(step.acknowledgement),
            costs.join("; ")
        )?;
    }
    Ok(())
}

fn write_costs(report: &RunReport, out: &mut String) -> fmt::Result {
    if let Some(disk) = &report.disk {
        writeln!(
            out,
            "\ndisk        {:.1} KB and {:.2} writes per message, by everything on this machine",
            disk.bytes_per_message / 1e3,
            disk.writes_per_message
        )?;
    }
    if let Some(floor) = &report.floor {
        writeln!(
            out,
            "\nfloor       {:.2} CPU-s per million bare sends of {} bytes to {} sockets",
            floor.cpu_seconds_per_million, floor.frame_bytes, floor.sockets
        )?;
    }
    let Some(server) = &report.server else {
        return writeln!(out, "\nserver      not measured, see --pid");
    };
    let ratio = server
        .times_floor
        .map(|ratio| format!(" ({ratio:.3} × floor)"))
        .unwrap_or_default();
    writeln!(
        out,
        "server      {:.2} CPU-s: {:.2} per million deliveries{ratio}",
        server.cpu_seconds, server.cpu_seconds_per_million_deliveries
    )?;
    let each =
        |MemoryPerConnection { pss, anonymous }| format!("{pss:.0} B ({anonymous:.0} B anonymous)");
    writeln!(
        out,
        "memory      {} a connection when idle, {} after the run (PSS)",
        each(server.idle),
        each(server.idle_afterwards)
    )?;
    let MemoryCourse {
        before,
        connected,
        left,
    } = server.memory;
    let megabytes = |memory: ProcessMemory| memory.anonymous as f64 / 1e6;
    write!(
        out,
        "anonymous   {:.1} MB before the clients, {:.1} MB with them",
        megabytes(before),
        megabytes(connected)
    )?;
    if let Some(left) = left {
        write!(out, ", {:.1} MB after they left", megabytes(left))?;
    }
    writeln!(out)
}
