//! What is told by its name: dumps, mail, mailboxes, notebooks, compiled Python, office documents. The first byte says
//! which.
#![no_main]

#[path = "../counted.rs"]
mod counted;

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Some((&which, data)) = data.split_first() else { return };
    counted::look(NAMES[usize::from(which) % NAMES.len()], data);
});

const NAMES: [&str; 6] = ["x.sql", "x.eml", "x.mbox", "x.ipynb", "x.pyc", "word/document.xml"];
