//! Figures for people: a line a server, with its ratio to the first.

use crate::load::Run;

/// The lines of one comparison.
#[derive(Default)]
pub(crate) struct Table {
    rows: Vec<(String, Run)>,
}

impl Table {
    /// Adds a server.
    pub(crate) fn add(&mut self, name: &str, run: Run) {
        self.rows.push((name.to_owned(), run));
    }

    /// Prints all, each beside its ratio to the first.
    pub(crate) fn print(&self, title: &str) {
        println!("\n{title}");
        println!("{:<34} {:>10} {:>9} {:>10} {:>10}", "", "a second", "ratio", "p50", "p99");
        let first = self.rows.first().map_or(1.0, |(_, run)| run.rate);
        for (name, run) in &self.rows {
            let ratio = run.rate / first;
            println!(
                "{name:<34} {:>10.0} {ratio:>9.2} {:>8.0}µs {:>8.0}µs",
                run.rate,
                run.p50.as_secs_f64() * 1e6,
                run.p99.as_secs_f64() * 1e6,
            );
        }
    }
}
