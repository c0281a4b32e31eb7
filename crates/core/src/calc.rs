//! What should be, one subject at a time.
//!
//! The desired state is the union of [`rows`] over all subjects. Calculating the dirty ones again gives the same as
//! calculating all from scratch.

mod endpoint;
mod floating;
mod node;
mod routing;

pub use node::NODE_SYSCTLS;
pub use routing::as_number;

use crate::desired::Row;
use crate::subject::Subject;
use crate::view::View;

/// Whether what the kernel has of a floating IP stays as it is.
pub use floating::stays;

/// The rows of one subject.
pub fn rows(view: &View, subject: &Subject) -> Vec<Row> {
    match subject {
        Subject::Node => node::rows().into_iter().chain(routing::router(view)).collect(),
        Subject::Attachment(_) | Subject::Lease => Vec::new(),
        Subject::Pool(name) => routing::pool(view, name),
        Subject::Block(cidr) => routing::block(view, cidr),
        Subject::OtherNode(name) => routing::mesh(view, name),
        Subject::Peer(name) => routing::peer(view, name),
        Subject::Endpoint(id) => endpoint::rows(view, id),
        Subject::Binding(floating) => floating::rows(view, *floating),
    }
}
