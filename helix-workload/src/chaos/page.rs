//! A page of its own, without anything to load, that shows a run: throughput, latency and faults over time, and the tables.

use std::fmt::Write;

use plotters::coord::Shift;
use plotters::prelude::{
    BLACK, BLUE, ChartBuilder, Color, DrawingArea, DrawingAreaErrorKind, IntoDrawingArea, IntoLogRange,
    LineSeries, RED, RGBColor, Rectangle, SVGBackend, WHITE,
};

use super::fault::Fault;
use super::report::Report;
use super::timeline::{Episode, Second};

const WIDTH: u32 = 1300;
const LEFT: u32 = 130;
const GREEN: RGBColor = RGBColor(0, 130, 60);
const ORANGE: RGBColor = RGBColor(235, 130, 0);
/// The least that the latency chart shows.
const LEAST_MS: f64 = 0.1;

type Failed = String;
type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;
type Rate = fn(&Second) -> f64;
type Latency = fn(&Second) -> Option<f64>;
type DrawError = DrawingAreaErrorKind<std::io::Error>;

/// The page, as HTML.
///
/// # Errors
/// When a chart can't be drawn.
pub fn render(report: &Report) -> Result<String, Failed> {
    let end_s = report.samples.last().map_or(1.0, |second| second.at_s).max(1.0);
    let throughput = draw(280, |area| draw_throughput(area, report, end_s))?;
    let latency = draw(280, |area| draw_latency(area, report, end_s))?;
    let kinds = report.summaries().len() as u32;
    let faults = draw(60 + 22 * kinds.max(1), |area| draw_faults(area, report, end_s))?;
    Ok(page(report, &[throughput, latency, faults]))
}

fn draw(height: u32, draw: impl FnOnce(&Area<'_>) -> Result<(), DrawError>) -> Result<String, Failed> {
    let mut svg = String::new();
    {
        let area = SVGBackend::with_string(&mut svg, (WIDTH, height)).into_drawing_area();
        area.fill(&WHITE)
            .and_then(|()| draw(&area))
            .and_then(|()| area.present())
            .map_err(|error| format!("a chart can't be drawn: {error}"))?;
    }
    Ok(svg)
}

/// A value at each second; gaps where there is none.
fn lines(samples: &[Second], value: impl Fn(&Second) -> Option<f64>) -> Vec<Vec<(f64, f64)>> {
    let mut lines = vec![Vec::new()];
    for second in samples {
        match (value(second), lines.last_mut()) {
            (Some(value), Some(line)) => line.push((second.at_s, value)),
            _ => lines.push(Vec::new()),
        }
    }
    lines
}

fn draw_throughput(area: &Area<'_>, report: &Report, end_s: f64) -> Result<(), DrawError> {
    let total = |second: &Second| second.plain_per_s + second.idempotent_per_s;
    let top = report.samples.iter().map(total).fold(1.0, f64::max) * 1.05;
    let mut chart = ChartBuilder::on(area)
        .margin(8)
        .caption("messages per second: acknowledged to plain (blue) and idempotent (green) producers, read (black)", ("sans-serif", 14))
        .x_label_area_size(24)
        .y_label_area_size(LEFT)
        .build_cartesian_2d(0.0..end_s, 0.0..top)?;
    chart.configure_mesh().light_line_style(WHITE).draw()?;
    chart.draw_series(report.episodes.iter().map(|one| shade(one, 0.0, top)))?;
    let series: [(RGBColor, Rate); 3] = [
        (BLACK, |second| second.read_per_s),
        (BLUE, |second| second.plain_per_s),
        (GREEN, |second| second.idempotent_per_s),
    ];
    for (colour, value) in series {
        for line in lines(&report.samples, |second| Some(value(second).min(top))) {
            chart.draw_series(LineSeries::new(line, &colour))?;
        }
    }
    Ok(())
}

fn draw_latency(area: &Area<'_>, report: &Report, end_s: f64) -> Result<(), DrawError> {
    let longest = report.samples.iter().filter_map(|second| second.max_ms).fold(1.0, f64::max) * 1.2;
    let mut chart = ChartBuilder::on(area)
        .margin(8)
        .caption(
            "latency of acknowledged messages in ms: slowest (orange) and 99 of 100 (blue)",
            ("sans-serif", 14),
        )
        .x_label_area_size(24)
        .y_label_area_size(LEFT)
        .build_cartesian_2d(0.0..end_s, (LEAST_MS..longest).log_scale())?;
    chart.configure_mesh().light_line_style(WHITE).draw()?;
    chart.draw_series(report.episodes.iter().map(|one| shade(one, LEAST_MS, longest)))?;
    let series: [(RGBColor, Latency); 2] = [(ORANGE, |second| second.max_ms), (BLUE, |second| second.p99_ms)];
    for (colour, value) in series {
        for line in lines(&report.samples, |second| value(second).map(|ms| ms.max(LEAST_MS))) {
            chart.draw_series(LineSeries::new(line, &colour))?;
        }
    }
    Ok(())
}

fn shade(one: &Episode, bottom: f64, top: f64) -> Rectangle<(f64, f64)> {
    Rectangle::new([(one.begun_s, bottom), (one.healed_s, top)], RED.mix(0.12).filled())
}

fn draw_faults(area: &Area<'_>, report: &Report, end_s: f64) -> Result<(), DrawError> {
    let kinds: Vec<Fault> = report.summaries().into_keys().collect();
    let row = |fault: Fault| kinds.iter().position(|kind| *kind == fault).unwrap_or(0) as f64;
    let mut chart = ChartBuilder::on(area)
        .margin(8)
        .caption("faults (red) and the time until everything was as before (orange)", ("sans-serif", 14))
        .x_label_area_size(24)
        .y_label_area_size(LEFT)
        .build_cartesian_2d(0.0..end_s, -0.5..kinds.len().max(1) as f64 - 0.5)?;
    let name = |row: &f64| kinds.get(row.round() as usize).map_or_else(String::new, ToString::to_string);
    chart
        .configure_mesh()
        .light_line_style(WHITE)
        .y_labels(kinds.len() + 1)
        .y_label_formatter(&name)
        .x_desc("seconds")
        .draw()?;
    let bar = |one: &Episode, from: f64, to: f64, colour: RGBColor| {
        let middle = row(one.fault);
        Rectangle::new([(from, middle - 0.4), (to, middle + 0.4)], colour.filled())
    };
    let recovery = |one: &Episode| one.healed_s + one.whole_after_ms.map_or(end_s, |ms| ms / 1e3);
    chart.draw_series(
        report.episodes.iter().map(|one| bar(one, one.healed_s, recovery(one).min(end_s), ORANGE)),
    )?;
    chart.draw_series(report.episodes.iter().map(|one| bar(one, one.begun_s, one.healed_s, RED)))?;
    Ok(())
}

fn page(report: &Report, charts: &[String]) -> String {
    let mut html = String::from(
        "<!doctype html>\n<html lang=\"en\"><meta charset=\"utf-8\"><title>Helix chaos</title>\n<style>\
         body{font:14px sans-serif;margin:24px;max-width:1320px}\
         table{border-collapse:collapse;margin:12px 0}td,th{padding:3px 10px;border-bottom:1px solid #ddd;text-align:right}\
         td:first-child,th:first-child{text-align:left}.bad{color:#b00;white-space:pre-wrap}svg{max-width:100%;height:auto}\
         </style>\n",
    );
    let verdict = if report.violations.is_empty() { "nothing found" } else { "VIOLATIONS FOUND" };
    let _ = writeln!(html, "<h1>Helix chaos: {verdict}</h1>");
    let _ = writeln!(
        html,
        "<p>{} nodes, {}, seed {}, {:.0} s, {} faults, {} messages of {} bytes acknowledged, {} repeated.</p>",
        report.nodes,
        escape(&report.write_durability),
        report.seed,
        report.seconds,
        report.episodes.len(),
        report.acknowledged,
        report.message_size,
        report.repeated,
    );
    for violation in &report.violations {
        let _ = writeln!(html, "<p class=\"bad\">{}</p>", escape(violation));
    }
    for chart in charts {
        html += chart;
    }
    write_table(&mut html, &report.table());
    let _ = writeln!(html, "<p>{}</p>", Report::LEGEND);
    let checked: Vec<[String; 2]> =
        report.verdicts().into_iter().map(|(name, text)| [name.to_owned(), text]).collect();
    write_table(&mut html, &checked);
    for (fault, reason) in &report.skipped {
        let _ = writeln!(html, "<p>SKIPPED {fault}: {}</p>", escape(reason));
    }
    write_table(&mut html, &every_fault(report));
    html + "</html>\n"
}

fn every_fault(report: &Report) -> Vec<[String; 7]> {
    let heading = ["fault", "nodes", "at", "lasted", "led by a victim", "led by others", "whole again"];
    let seconds = |ms: Option<f64>| ms.map_or_else(|| "-".into(), |ms| format!("{:.2} s", ms / 1e3));
    let mut rows = vec![heading.map(str::to_owned)];
    rows.extend(report.episodes.iter().map(|one| {
        [
            format!("{} {}", one.fault, one.particulars),
            format!("{:?}", one.nodes),
            format!("{:.1} s", one.begun_s),
            format!("{:.1} s", one.healed_s - one.begun_s),
            seconds(one.interruption_led_ms),
            seconds(one.interruption_others_ms),
            seconds(one.whole_after_ms),
        ]
    }));
    rows
}

fn write_table<const N: usize>(html: &mut String, rows: &[[String; N]]) {
    *html += "<table>\n";
    for row in rows {
        *html += "<tr>";
        for cell in row {
            let _ = write!(html, "<td>{}</td>", escape(cell));
        }
        *html += "</tr>\n";
    }
    *html += "</table>\n";
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chaos::report::tests::report;

    #[test]
    fn the_page_shows_charts_tables_and_what_was_found() {
        let mut report = report();
        report.violations.push("lost <3>".into());
        let html = render(&report).unwrap();
        assert_eq!(html.matches("<svg").count(), 3);
        assert!(html.contains("VIOLATIONS FOUND") && html.contains("lost &lt;3&gt;"));
        assert!(html.contains("leader-killed") && html.contains("SKIPPED disk-full: no root"));
        assert!(!html.contains("http://localhost") && !html.contains("<script"));
    }

    #[test]
    fn a_run_without_anything_has_a_page_too() {
        let mut report = report();
        report.episodes.clear();
        report.samples.clear();
        assert!(render(&report).unwrap().contains("nothing found"));
    }

    #[test]
    fn lines_are_broken_where_there_is_no_value() {
        let lines = lines(&report().samples[..10], |second| second.max_ms);
        let lengths: Vec<usize> = lines.iter().map(Vec::len).filter(|length| *length > 0).collect();
        assert_eq!(lengths, [6, 2]);
    }
}
