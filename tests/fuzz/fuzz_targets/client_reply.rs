//! What a client is answered by whoever listens where o2bridged should.
#![no_main]

use std::io::Write;
use std::net::Shutdown;
use std::os::unix::net::UnixListener;
use std::path::PathBuf;

use libfuzzer_sys::fuzz_target;
use o2bridge::client::{Begin, Client, ClientError};
use o2bridge_core::GroupId;
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Less than a socket takes before somebody reads it.
const BYTES_MAX: usize = 16 * 1024;

thread_local! {
    static DOOR: (PathBuf, UnixListener) = {
        let path = std::env::temp_dir().join(format!("o2bridge-fuzz-{}", std::process::id()));
        let _ = std::fs::remove_file(&path);
        let listener = UnixListener::bind(&path).expect("a socket to listen on");
        (path, listener)
    };
}

/// A client to which somebody has already said all that.
fn client(data: &[u8]) -> Client {
    DOOR.with(|(path, listener)| {
        let client = Client::connect(path).expect("somebody listens");
        let (mut peer, _) = listener.accept().expect("somebody has connected");
        peer.write_all(data).expect("a socket takes as much");
        peer.shutdown(Shutdown::Write).expect("the socket is ours");
        client
    })
}

fn is_said<T>(answer: Result<T, ClientError>) -> Option<T> {
    match answer {
        Ok(answer) => Some(answer),
        Err(error) => {
            let is_theirs = matches!(error, ClientError::Refused(_));
            assert!(is_theirs || !error.to_string().is_empty(), "{error:?} says nothing");
            None
        }
    }
}

/// What is understood is understood again when it is printed for a program.
fn again<T: Serialize + DeserializeOwned + PartialEq + std::fmt::Debug>(answer: Option<T>) {
    let Some(answer) = answer else { return };
    let text = serde_json::to_string(&answer).expect("it is printed");
    assert_eq!(serde_json::from_str::<T>(&text).expect("it is read"), answer);
}

fuzz_target!(|data: &[u8]| {
    let data = data.get(..BYTES_MAX).unwrap_or(data);
    let group = GroupId(7);
    again(is_said(client(data).status()));
    again(is_said(client(data).list()));
    again(is_said(client(data).capabilities()));
    let mut tool = client(data);
    // One reply each, as long as there are any; then the connection is of no use any more.
    while is_said(tool.begin(&Begin::new(group, "/mnt"))).is_some() {}
    let _ = is_said(tool.complete(group, "/mnt", 0));
    let _ = is_said(client(data).dump());
    if let Some(watch) = is_said(client(data).watch()) {
        watch.take_while(Result::is_ok).for_each(drop);
    }
});
