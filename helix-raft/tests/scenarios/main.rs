//! Scenarios as text: commands after `> `, below each what comes of it. `HELIX_REWRITE=1` writes down what comes of it
//! now, to be read before it is committed. What the commands are is said in `commands.rs`.

mod commands;
mod show;
mod world;

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use world::World;

#[test]
fn scenarios_come_out_as_written() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/scenarios");
    let only = std::env::var("HELIX_SCENARIO").unwrap_or_default();
    let mut files: Vec<PathBuf> = std::fs::read_dir(&folder)
        .expect("the folder of the scenarios is readable")
        .map(|entry| entry.expect("its entries are").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "txt"))
        .filter(|path| path.to_string_lossy().contains(&only))
        .collect();
    files.sort();
    assert!(!files.is_empty(), "no scenario matches {only:?}");
    let rewrite = std::env::var("HELIX_REWRITE").is_ok_and(|value| value == "1");
    let mut differing = Vec::new();
    for path in files {
        let written = std::fs::read_to_string(&path).expect("a scenario is readable text");
        let actual = play(&written);
        if actual == written {
            continue;
        }
        if rewrite {
            std::fs::write(&path, actual).expect("a scenario can be rewritten");
        } else {
            differing.push(format!("{}\n{}", path.display(), difference(&written, &actual)));
        }
    }
    assert!(differing.is_empty(), "{}\nHELIX_REWRITE=1 takes over what is new.", differing.join("\n"));
}

/// Plays a scenario and writes it down anew.
fn play(text: &str) -> String {
    let mut world = World::default();
    let mut result = String::new();
    let mut lines = text.lines().peekable();
    while let Some(line) = lines.next() {
        let Some(command) = line.strip_prefix("> ") else {
            writeln!(result, "{line}").expect("a string takes it");
            continue;
        };
        while lines.next_if(|line| !line.is_empty() && !line.starts_with("> ")).is_some() {}
        writeln!(result, "{line}").expect("a string takes it");
        commands::run(&mut world, command);
        result.push_str(&world.take_output());
    }
    result
}

fn difference(written: &str, actual: &str) -> String {
    let (written, actual): (Vec<&str>, Vec<&str>) = (written.lines().collect(), actual.lines().collect());
    let same = written.iter().zip(&actual).take_while(|(a, b)| a == b).count();
    let excerpt = |lines: &[&str], sign: &str| {
        lines.iter().skip(same).take(6).map(|line| format!("{sign} {line}\n")).collect::<String>()
    };
    format!("line {}:\n{}{}", same + 1, excerpt(&written, "-"), excerpt(&actual, "+"))
}
