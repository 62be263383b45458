//! Which values stand in which blobs, before anybody asks where the blobs stand.

use gix_hash::ObjectId;

use crate::finding::Known;
use crate::look::{Looked, Seen};
use crate::text::{Lines, Sighting};

/// What the threads of a scan have seen.
#[derive(Debug, Default)]
pub(crate) struct Sightings {
    /// Blobs with values.
    pub blobs: Vec<SeenBlob>,
    /// Blobs that could not be read.
    pub unread: Vec<ObjectId>,
    /// Blobs of which something could not be looked into, which each scan has to tell.
    pub troubled: Vec<ObjectId>,
}

/// A blob with values.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SeenBlob {
    pub id: ObjectId,
    pub seen: Vec<Seen>,
}

impl Sightings {
    /// Adds a blob with what was found in it, in order.
    pub fn add(&mut self, id: ObjectId, text: &[u8], known: &[Known]) {
        let mut lines = Lines::default();
        let seen = known.iter().map(|known| {
            let (line, column) = lines.at(text, known.start);
            Seen { value: known.value, encoding: known.encoding, line, column, within: None }
        });
        self.blobs.push(SeenBlob { id, seen: seen.collect() });
    }

    /// Adds a blob that was streamed.
    pub fn add_streamed(&mut self, id: ObjectId, sightings: &[Sighting]) {
        if sightings.is_empty() {
            return;
        }
        let seen = sightings.iter().map(|sighting| {
            let Sighting { known, line, column } = *sighting;
            Seen { value: known.value, encoding: known.encoding, line, column, within: None }
        });
        self.blobs.push(SeenBlob { id, seen: seen.collect() });
    }

    /// Adds a blob that was looked into.
    pub fn add_looked(&mut self, id: ObjectId, looked: Looked) {
        if looked.is_troubled {
            self.troubled.push(id);
        }
        if !looked.seen.is_empty() {
            self.blobs.push(SeenBlob { id, seen: looked.seen });
        }
    }

    /// Takes over what another thread has seen.
    pub fn append(&mut self, mut other: Self) {
        self.blobs.append(&mut other.blobs);
        self.unread.append(&mut other.unread);
        self.troubled.append(&mut other.troubled);
    }
}
