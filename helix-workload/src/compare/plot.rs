//! A plot of one figure: a bar for each measurement, in the order of time.

use plotters::prelude::{
    BLACK, ChartBuilder, Color, EmptyElement, IntoDrawingArea, IntoFont, RGBColor, Rectangle, SVGBackend,
    Text, WHITE,
};

use super::results::{RowResults, short};
use super::subjects::Contender;

const SIZE: (u32, u32) = (640, 260);
const LEFT: u32 = 70;
const BAR: f64 = 0.38;

fn colour(contender: Contender) -> RGBColor {
    match contender {
        Contender::Helix => RGBColor(0, 100, 180),
        Contender::Kafka => RGBColor(150, 150, 150),
    }
}

/// The plot of a row, as SVG.
pub(super) fn draw(results: &RowResults) -> Result<String, String> {
    let mut svg = String::new();
    draw_into(&mut svg, results).map_err(|error| error.to_string())?;
    Ok(svg)
}

fn draw_into(svg: &mut String, results: &RowResults) -> Result<(), Box<dyn std::error::Error>> {
    let plotted = results.row.plotted;
    let mut bars = Vec::new();
    for (number, round) in results.rounds.iter().enumerate() {
        for (contender, figures) in round {
            if let Some(value) = figures.get(plotted) {
                let side = if *contender == Contender::Helix { -0.5 } else { 0.5 };
                bars.push((number as f64 + side * BAR, *contender, value));
            }
        }
    }
    let top = bars.iter().map(|(_, _, value)| *value).fold(f64::MIN_POSITIVE, f64::max) * 1.15;
    let rounds = results.rounds.len().max(1) as f64;
    let area = SVGBackend::with_string(svg, SIZE).into_drawing_area();
    area.fill(&WHITE)?;
    let mut chart = ChartBuilder::on(&area)
        .margin(8)
        .caption(format!("{}, {plotted}", results.row.title), ("sans-serif", 14))
        .x_label_area_size(24)
        .y_label_area_size(LEFT)
        .build_cartesian_2d(-0.5..rounds - 0.5, 0.0..top)?;
    chart
        .configure_mesh()
        .disable_x_mesh()
        .light_line_style(WHITE)
        .x_labels(results.rounds.len())
        .x_label_formatter(&|round| format!("round {:.0}", round + 1.0))
        .draw()?;
    for contender in [Contender::Helix, Contender::Kafka] {
        let own: Vec<_> = bars.iter().filter(|(_, owner, _)| *owner == contender).collect();
        if own.is_empty() {
            continue;
        }
        chart
            .draw_series(own.iter().map(|(middle, _, value)| {
                Rectangle::new(
                    [(middle - BAR / 2.0, 0.0), (middle + BAR / 2.0, *value)],
                    colour(contender).filled(),
                )
            }))?
            .label(contender.to_string())
            .legend(move |(x, y)| Rectangle::new([(x, y - 5), (x + 10, y + 5)], colour(contender).filled()));
        chart.draw_series(own.iter().map(|(middle, _, value)| {
            let label = Text::new(short(*value), (-12, -14), ("sans-serif", 11).into_font());
            EmptyElement::at((*middle, *value)) + label
        }))?;
    }
    chart.configure_series_labels().background_style(WHITE.mix(0.8)).border_style(BLACK).draw()?;
    area.present()?;
    Ok(())
}
