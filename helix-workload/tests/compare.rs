//! Every row of the benchmark's table, measured once and briefly on Helix alone. How fast it is says nothing here; that everything is
//! right, and that a page comes of it, is asserted.

use std::path::PathBuf;
use std::time::Duration;

use helix_workload::compare::{self, CompareOptions, Contender, ROWS, Scale};
use helix_workload::progress::Progress;
use helix_workload::server_binary::server_binary;

#[test]
fn every_row_can_be_measured_and_nothing_goes_wrong() {
    let directory = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("compare");
    let options = CompareOptions {
        binary: server_binary().unwrap_or_else(|error| panic!("{error}")),
        kafka_libs: None,
        kafka_warmup: Duration::ZERO,
        settle: false,
        directory: directory.clone(),
        rows: ROWS.iter().collect(),
        rounds: 1,
        scale: Scale {
            measured: Duration::from_secs(1),
            stress: Duration::from_secs(1),
            partitions: 60,
            fetch_bytes: 10_000_000,
            stored_bytes: 10_000_000,
            groups: 10,
            group_members: 10,
            retention_written_bytes: 200_000_000,
            retention_bytes: 8 << 20,
        },
        about: vec!["a test".into()],
    };
    let results = compare::run(&options, Progress::detect());
    assert_eq!(results.faults(), [""; 0]);
    for row in &results.rows {
        for target in row.row.targets {
            let figure = row.figure(Contender::Helix, target.figure);
            assert!(figure.is_some(), "{} was not measured: {}", row.row.name, target.figure);
        }
        assert!(row.figure(Contender::Helix, row.row.plotted).is_some(), "{} has no plot", row.row.name);
    }
    let page = directory.join("page.md");
    compare::write_page(&results, &page).unwrap_or_else(|error| panic!("{error}"));
    let text = std::fs::read_to_string(&page).unwrap();
    assert!(ROWS.iter().all(|row| text.contains(&format!("## {}\n", row.name))), "{text}");
    std::fs::remove_dir_all(&directory).unwrap();
}
