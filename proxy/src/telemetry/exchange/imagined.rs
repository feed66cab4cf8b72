//! Requests that nobody sent: what is decided on them is told, that they ended is not.

use super::RequestRecord;

impl RequestRecord {
    /// Nobody sent this request.
    pub fn imagine(&self) {
        self.imagined.set(true);
    }

    pub fn is_imagined(&self) -> bool {
        self.imagined.get()
    }
}
