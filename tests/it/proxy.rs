//! A wire that can be made to stand still: nothing gets through, and no connection breaks.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Passes bytes on between whoever connects and somebody else. It ends with the test's process.
#[derive(Clone, Debug)]
pub(crate) struct Proxy {
    still: Arc<AtomicBool>,
}

impl Proxy {
    pub(crate) fn start(listens: &str, to: String) -> Self {
        let listener = TcpListener::bind(listens).unwrap();
        let still = Arc::new(AtomicBool::new(false));
        let proxy = Self { still };
        let passing = proxy.clone();
        std::thread::spawn(move || {
            for near in listener.incoming().flatten() {
                let Ok(far) = TcpStream::connect(&to) else { continue };
                for (from, into) in [(&near, &far), (&far, &near)] {
                    let (from, into) = (from.try_clone().unwrap(), into.try_clone().unwrap());
                    let passing = passing.clone();
                    std::thread::spawn(move || passing.pass(from, into));
                }
            }
        });
        proxy
    }

    pub(crate) fn stand_still(&self, still: bool) {
        self.still.store(still, Ordering::Relaxed);
    }

    fn pass(&self, mut from: TcpStream, mut into: TcpStream) {
        let mut bytes = [0; 16 << 10];
        while let Ok(count @ 1..) = from.read(&mut bytes) {
            while self.still.load(Ordering::Relaxed) {
                std::thread::sleep(Duration::from_millis(5));
            }
            if into.write_all(&bytes[..count]).is_err() {
                break;
            }
        }
        let _ = (from.shutdown(Shutdown::Both), into.shutdown(Shutdown::Both));
    }
}
