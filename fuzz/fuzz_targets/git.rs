//! What stands in git's files: deltas, commits, trees, headers of loose objects, and the index. A delta that applies says
//! truly what it copied.
#![no_main]

use keymoat_scan::git::{delta, index, object};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let (base, rest) = data.split_at(data.len() / 2);
    for (base, rest) in [(base, rest), (&data[..0], data), (&data[..data.len().min(16)], rest)] {
        let (mut result, mut copied) = (Vec::new(), Vec::new());
        if delta::apply(base, rest, 1 << 20, &mut result, &mut copied).is_ok() {
            for part in &copied {
                assert!(part.len > 0);
                assert_eq!(result[part.in_result()], base[part.base..part.base + part.len]);
            }
        }
    }
    for id_len in [20, 32] {
        let entries = index::entries(data, id_len).unwrap_or_default();
        assert!(entries.iter().all(|entry| entry.id.len() == id_len));
        let listed: usize = object::tree_entries(data, id_len).map(|entry| entry.name.len() + id_len).sum();
        assert!(listed <= data.len());
    }
    let _ = object::loose_header(data);
    let _ = object::commit(data);
    let _ = object::author(data);
    let _ = object::title(data);
    let _ = object::tag_target(data);
});
