//! What a run has found: for people on a terminal, and as a table in a page.

use std::collections::BTreeSet;
use std::fmt;
use std::fs;
use std::io;
use std::path::Path;

use super::diff::FieldDifference;
use super::explain::{Explanation, Kind};

/// The part of the page that is written here; the rest is somebody else's.
const BEGIN: &str = "<!-- differential: begin -->";
const END: &str = "<!-- differential: end -->";
const NEW_PAGE: &str = "# Compatibility\n\n";
/// So many names are spelled out in a cell of the table.
const NAMES_SHOWN: usize = 3;
/// So many characters of each.
const NAME_CHARACTERS: usize = 40;

/// A field that the two brokers answered differently.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Difference {
    pub(super) api: String,
    pub(super) version: i16,
    pub(super) case: String,
    pub(super) field: FieldDifference,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { api, version, case, field } = self;
        write!(f, "{api} v{version} \"{case}\" {}: Helix {}, Kafka {}", field.field, field.helix, field.kafka)
    }
}

/// What a run has found.
#[derive(Debug)]
pub struct Report {
    /// How many answers were compared.
    pub(super) answers: usize,
    /// APIs that Helix serves and the script does not know.
    pub(super) without_cases: Vec<String>,
    /// Whether the whole script was run: only then can an explanation be found to be of no use.
    pub(super) whole: bool,
    explained: Vec<(Explanation, Vec<Difference>)>,
    unexplained: Vec<Difference>,
}

impl Report {
    pub(super) fn new(differences: Vec<Difference>, explanations: Vec<Explanation>) -> Self {
        let mut explained: Vec<_> = explanations.into_iter().map(|one| (one, Vec::new())).collect();
        let mut unexplained = Vec::new();
        for difference in differences {
            match explained.iter_mut().find(|(explanation, _)| explanation.explains(&difference)) {
                Some((_, differences)) => differences.push(difference),
                None => unexplained.push(difference),
            }
        }
        Self { answers: 0, without_cases: Vec::new(), whole: true, explained, unexplained }
    }

    /// How many differences have no explanation.
    pub fn unexplained(&self) -> usize {
        self.unexplained.len()
    }

    /// Writes the table into a page, between its markers; makes the page, or the markers at its end, if there are none.
    ///
    /// # Errors
    /// When the page cannot be read or written.
    pub fn write_into(&self, path: &Path) -> io::Result<()> {
        let page = match fs::read_to_string(path) {
            Ok(page) => page,
            Err(error) if error.kind() == io::ErrorKind::NotFound => NEW_PAGE.to_owned(),
            Err(error) => return Err(error),
        };
        fs::write(path, placed(&page, &self.table()))
    }

    fn table(&self) -> String {
        let mut out = format!(
            "## Differences from Apache Kafka\n\n\
             Written by `scripts/differential`, which sends the same requests to one Helix node and one Apache Kafka 4.1 node and \
             compares the answers field by field: {} answers, every version of every API below. Addresses, times, drawn ids and \
             the wording of messages are left out of the comparison, and so is the order of lists.\n",
            self.answers
        );
        for (kind, title) in [(Kind::Gap, "To be closed"), (Kind::Deliberate, "Deliberate")] {
            let rows: Vec<String> = self
                .explained
                .iter()
                .filter(|(e, found)| e.kind == kind && !found.is_empty())
                .map(row)
                .collect();
            if !rows.is_empty() {
                out +=
                    &format!("\n### {title}\n\n| API | Versions | Request | Field | Helix | Kafka | Why |\n");
                out += &format!("|--|--|--|--|--|--|--|\n{}\n", rows.join("\n"));
            }
        }
        if !self.unexplained.is_empty() {
            out += "\n### Without an explanation\n\n";
            self.unexplained
                .iter()
                .for_each(|one| out += &format!("* {}\n", one.to_string().replace('|', "\\|")));
        }
        out
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for difference in &self.unexplained {
            writeln!(f, "  DIFFERENT  {difference}")?;
        }
        for (explanation, found) in &self.explained {
            if found.is_empty() && self.whole {
                writeln!(
                    f,
                    "  NO LONGER  {} {} {}: {}",
                    explanation.api, explanation.case, explanation.field, explanation.why
                )?;
            }
        }
        for api in &self.without_cases {
            writeln!(f, "  NO CASES   {api} is served, but the script has nothing to ask")?;
        }
        let explained: usize = self.explained.iter().map(|(_, found)| found.len()).sum();
        writeln!(
            f,
            "  {} answers compared; {explained} fields differ for known reasons, {} for unknown ones",
            self.answers,
            self.unexplained.len()
        )
    }
}

/// One explanation, with all that it explains.
fn row((explanation, found): &(Explanation, Vec<Difference>)) -> String {
    let versions: BTreeSet<i16> = found.iter().map(|one| one.version).collect();
    let versions = match (versions.first(), versions.last()) {
        (Some(first), Some(last)) if first != last => format!("{first} to {last}"),
        (Some(only), _) => only.to_string(),
        _ => String::new(),
    };
    let names = |of: &dyn Fn(&Difference) -> String| {
        let all: BTreeSet<String> = found.iter().map(of).collect();
        let mut shown: Vec<String> = all.iter().take(NAMES_SHOWN).map(|name| cut(name)).collect();
        if all.len() > NAMES_SHOWN {
            shown.push(format!("and {} more", all.len() - NAMES_SHOWN));
        }
        shown.join("; ").replace('|', "\\|").replace('<', "&lt;")
    };
    let apis = names(&|one| one.api.clone());
    let cells = [
        apis,
        versions,
        names(&|one| one.case.clone()),
        names(&|one| generalised(&one.field.field)),
        names(&|one| one.field.helix.clone()),
        names(&|one| one.field.kafka.clone()),
        explanation.why.clone(),
    ];
    format!("| {} |", cells.join(" | "))
}

/// The beginning of what is too long for a cell.
fn cut(text: &str) -> String {
    match text.char_indices().nth(NAME_CHARACTERS) {
        Some((at, _)) => format!("{}…", &text[..at]),
        None => text.to_owned(),
    }
}

/// A path without the names in brackets.
fn generalised(path: &str) -> String {
    let mut out = String::new();
    let mut inside = false;
    for c in path.chars() {
        inside = match c {
            '[' => {
                out.push('[');
                true
            }
            ']' => false,
            _ => inside,
        };
        if !inside {
            out.push(c);
        }
    }
    out
}

/// The page with the table between its markers.
fn placed(page: &str, table: &str) -> String {
    let marked = format!("{BEGIN}\n{table}{END}");
    let around = page.split_once(BEGIN).and_then(|(front, rest)| Some((front, rest.split_once(END)?.1)));
    match around {
        Some((front, back)) => format!("{front}{marked}{back}"),
        None => format!("{}\n\n{marked}\n", page.trim_end()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn difference(field: &str) -> Difference {
        let field = FieldDifference { field: field.into(), helix: "1".into(), kafka: "2".into() };
        Difference { api: "Fetch".into(), version: 4, case: "case".into(), field }
    }

    #[test]
    fn the_rest_of_a_page_stays() {
        let once = placed("# Compatibility\n\nmine\n", "table\n");
        assert_eq!(once, format!("# Compatibility\n\nmine\n\n{BEGIN}\ntable\n{END}\n"));
        let twice = placed(&format!("{once}\nbehind\n"), "other\n");
        assert_eq!(twice, format!("# Compatibility\n\nmine\n\n{BEGIN}\nother\n{END}\n\nbehind\n"));
    }

    #[test]
    fn what_is_not_explained_is_counted() {
        let explanation: Explanation =
            toml::from_str("api = 'Fetch'\nfield = 'a[*]'\nkind = 'gap'\nwhy = 'because'").unwrap();
        let report = Report::new(vec![difference("a[x]"), difference("b")], vec![explanation]);
        assert_eq!(report.unexplained(), 1);
        let text = report.to_string();
        assert!(text.contains("DIFFERENT  Fetch v4 \"case\" b: Helix 1, Kafka 2"), "{text}");
        let table = report.table();
        assert!(table.contains("| Fetch | 4 | case | a[] | 1 | 2 | because |"), "{table}");
        assert!(table.contains("Without an explanation"), "{table}");
    }

    #[test]
    fn an_explanation_without_a_difference_is_told() {
        let explanation: Explanation = toml::from_str("api = 'X'\nkind = 'gap'\nwhy = 'because'").unwrap();
        assert!(Report::new(Vec::new(), vec![explanation]).to_string().contains("NO LONGER  X"));
    }
}
