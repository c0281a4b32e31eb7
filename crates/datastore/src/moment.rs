//! What records get on their creation, from the world outside.

use jiff::Timestamp;
use uuid::Uuid;

use crate::codec::Moment;

/// Now, and a new identity.
pub(crate) fn moment() -> Moment {
    Moment {
        now: Timestamp::now(),
        uid: Uuid::new_v4().to_string(),
    }
}
