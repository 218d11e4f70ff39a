//! The page: the table of targets, and each row's figures with a plot.

use std::fmt::Write;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::plot;
use super::results::{Results, RowResults};
use super::row::Target;
use super::subjects::Contender;

/// The page could not be made.
#[derive(Debug, thiserror::Error)]
pub enum PageError {
    /// A file.
    #[error("writing {path:?}: {source}")]
    Io {
        /// Which.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A plot.
    #[error("drawing the plot of {row}: {reason}")]
    Plot {
        /// Of which row.
        row: &'static str,
        /// What the library said.
        reason: String,
    },
}

/// Writes the page to `path`, and the plots and all figures as JSON to a directory of the same name without extension.
pub fn write(results: &Results, path: &Path) -> Result<(), PageError> {
    let io_error = |path: &Path| {
        let path = path.to_owned();
        move |source| PageError::Io { path, source }
    };
    let directory = path.with_extension("");
    fs::create_dir_all(&directory).map_err(io_error(&directory))?;
    for row in &results.rows {
        let svg = plot::draw(row).map_err(|reason| PageError::Plot { row: row.row.name, reason })?;
        let path = directory.join(format!("{}.svg", row.row.name));
        fs::write(&path, svg).map_err(io_error(&path))?;
    }
    let json = directory.join("results.json");
    results.save(&json).map_err(io_error(&json))?;
    let name = directory.file_name().unwrap_or_default().to_string_lossy();
    fs::write(path, render(results, &name)).map_err(io_error(path))
}

/// The page as Markdown; its plots stand in the directory of that name beside it.
fn render(results: &Results, directory: &str) -> String {
    let mut page = String::from(
        "# Benchmarks\n\n\
         This page is written by `scripts/bench`. Figures of Helix and of Apache Kafka are taken in turn in one run, and ratios \
         between figures of the same round, because machines drift; a figure is the median of all rounds, with the least and the most \
         behind it. RF 3, acks=all, messages of 1 KiB and 12 partitions unless said otherwise; load, three nodes and the peer's \
         three nodes share one machine.\n\n",
    );
    for line in &results.about {
        let _ = writeln!(page, "* {line}");
    }
    page.push_str("\n| workload | expected | reached | |\n|--|--|--|--|\n");
    for row in &results.rows {
        for target in row.row.targets {
            let _ = writeln!(page, "{}", target_line(row, target));
        }
    }
    let _ = write!(page, "\nEvery figure is in [results.json]({directory}/results.json).\n");
    for row in &results.rows {
        row_section(&mut page, row, directory);
    }
    page
}

fn target_line(row: &RowResults, target: &Target) -> String {
    let (reached, verdict) = match row.reached(target) {
        _ if !row.faults.is_empty() => ("went wrong, see below".to_owned(), "**wrong**"),
        None => ("not measured".to_owned(), ""),
        Some(reached) if target.bound.holds(reached.median) => (reached.to_string(), "met"),
        Some(reached) => (reached.to_string(), "**not met**"),
    };
    format!("| [{}](#{}) | {target} | {reached} | {verdict} |", row.row.title, row.row.name)
}

fn row_section(page: &mut String, row: &RowResults, directory: &str) {
    let name = row.row.name;
    let _ = write!(page, "\n## {name}\n\n{}: {}.\n\n", row.row.title, row.row.method);
    for fault in &row.faults {
        let _ = write!(page, "**Wrong**: {fault}\n\n");
    }
    let contenders: Vec<Contender> = [Contender::Helix, Contender::Kafka]
        .into_iter()
        .filter(|contender| row.rounds.iter().any(|round| round.contains_key(contender)))
        .collect();
    let mut names: Vec<&str> = row
        .rounds
        .iter()
        .flat_map(|round| round.values().flat_map(super::results::Figures::iter))
        .map(|(name, _)| name)
        .collect();
    names.sort_unstable();
    names.dedup();
    let head: String = contenders.iter().map(|contender| format!(" {contender} |")).collect();
    let _ = writeln!(page, "| |{head}\n|--|{}", "--|".repeat(contenders.len()));
    for figure in names {
        let cells: String = contenders
            .iter()
            .map(|contender| {
                let spread = row.figure(*contender, figure);
                format!(" {} |", spread.map_or_else(String::new, |spread| spread.to_string()))
            })
            .collect();
        let _ = writeln!(page, "| {figure} |{cells}");
    }
    let _ = writeln!(page, "\n![{name}: {}]({directory}/{name}.svg)", row.row.plotted);
}

#[cfg(test)]
mod tests {
    use super::super::results::{Figures, Round};
    use super::super::row::Row;
    use super::*;

    fn results(faults: Vec<String>) -> Results {
        let mut round = Round::new();
        round.insert(Contender::Helix, Figures::default().with("MB/s", 100.0).with("broker CPU s/GB", 3.0));
        round.insert(Contender::Kafka, Figures::default().with("MB/s", 40.0).with("broker CPU s/GB", 5.0));
        let row = RowResults { row: Row::named("six-producers").unwrap(), rounds: vec![round], faults };
        Results { about: vec!["a machine".into()], rows: vec![row] }
    }

    #[test]
    fn the_table_says_what_was_met_and_what_was_not() {
        let page = render(&results(Vec::new()), "benchmarks");
        assert!(page.contains("| MB/s / Apache Kafka's at least 2.00 | 2.50 | met |"), "{page}");
        assert!(page.contains("at most 0.40 | 0.60 | **not met** |"), "{page}");
        assert!(page.contains("* a machine\n") && page.contains("| MB/s | 100 | 40.0 |"), "{page}");
    }

    #[test]
    fn what_went_wrong_meets_no_target() {
        let page = render(&results(vec!["round 1: lost".into()]), "benchmarks");
        assert!(page.contains("**Wrong**: round 1: lost"), "{page}");
        assert!(!page.contains("| met |"), "{page}");
    }

    #[test]
    fn it_writes_a_plot_and_the_figures_beside_the_page() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("page.md");
        write(&results(Vec::new()), &path).unwrap();
        let svg = fs::read_to_string(directory.path().join("page/six-producers.svg")).unwrap();
        assert!(svg.contains("</svg>") && svg.contains("Apache Kafka"), "{svg}");
        let json = fs::read_to_string(directory.path().join("page/results.json")).unwrap();
        assert!(json.contains("\"row\": \"six-producers\"") && json.contains("\"kafka\""), "{json}");
    }
}
