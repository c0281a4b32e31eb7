//! The plugins as programs, against an agent that follows a script. They need root, for network namespaces.

#[cfg(test)]
mod add;
#[cfg(test)]
mod del;
#[cfg(test)]
mod delegate;
#[cfg(test)]
mod support;
#[cfg(test)]
mod verbs;
