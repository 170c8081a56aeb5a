//! What makes one door different from the other: how bytes become requests and replies bytes.

use o2bridge_core::Reply;

use super::desk::{Call, Shown};

/// What a connection does after a request was handled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Next {
    /// The answer is in the output.
    Answered,
    /// The core was asked; [`Dialect::answer`] comes later.
    Waits,
    /// The first status is in the output; more come with [`Dialect::publish`].
    Streams,
    /// The output ends the connection.
    Closes,
}

/// The language of one door, with the state of one connection.
pub(crate) trait Dialect: Default + std::fmt::Debug {
    /// How many bytes of input are kept. A message that is longer ends the connection; requests that
    /// are sent ahead of their turn and do not fit stay in the socket.
    const INPUT_BYTES_MAX: usize;

    /// The length of the first whole message, its end mark included.
    fn split(input: &[u8]) -> Option<usize>;

    /// Handles one message.
    fn handle(&mut self, message: &[u8], call: &mut Call<'_, '_>, output: &mut Vec<u8>) -> Next;

    /// Says that a message is too long; the connection ends.
    fn overlong(output: &mut Vec<u8>);

    /// Says that there are too many clients; the connection ends before it began.
    fn crowded(output: &mut Vec<u8>);

    /// Answers the request that waits.
    fn answer(&mut self, reply: &Reply, output: &mut Vec<u8>);

    /// Sends one more status to a stream.
    fn publish(&mut self, shown: &Shown, output: &mut Vec<u8>);

    /// Whether a client that closed only its sending side still gets the answer that it waits for.
    /// If not, the end of what it sends is its death.
    fn outlives_input(&self) -> bool;
}
