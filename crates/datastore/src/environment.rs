//! Variables of the environment, as Calico's programs read them.

/// Looks variables up with Calico's prefix first; one that is empty is not there.
pub(crate) fn of_calico(env: impl Fn(&str) -> Option<String>) -> impl Fn(&str) -> Option<String> {
    move |name| {
        let found = env(&format!("CALICO_{name}")).or_else(|| env(name));
        found.filter(|value| !value.is_empty())
    }
}
