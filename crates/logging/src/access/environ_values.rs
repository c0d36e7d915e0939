use mlws_server::Record;

/// The environ variables that a format uses, in the order of [`Format::environ`](super::Format). Stored as the log
/// context of a request.
pub struct EnvironValues(pub Vec<Option<String>>);

impl EnvironValues {
    pub(crate) fn of<'a>(record: &Record<'a>) -> Option<&'a Self> {
        record.request.log_context()?.downcast_ref()
    }

    pub(crate) fn get(&self, index: usize) -> Option<&str> {
        self.0.get(index)?.as_deref()
    }
}
