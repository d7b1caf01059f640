//! Logging. A log line never waits: a thread of its own writes, and while stdout is blocked lines
//! are dropped and counted instead of holding up those who serve.

use crate::config::{LogConfig, LogFormat, LogLevel};
use std::{
    io::{self, IsTerminal, Write},
    mem,
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};
use tracing::{Subscriber, level_filters::LevelFilter};
use tracing_subscriber::{
    Layer, Registry, filter::Targets, fmt::MakeWriter, layer::SubscriberExt, reload,
};

/// Most lines waiting to be written: some seconds of a busy node.
const QUEUE_LINES_MAX: usize = 8192;
/// Logging that works; keeps the means to change and to end it.
#[derive(Clone, Debug)]
pub struct Telemetry {
    level: reload::Handle<Targets, Registry>,
    lines: Lines,
}

/// Logging could not be set up or changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TelemetryError {
    /// The process logs already.
    #[error("set up logging: {0}")]
    Installed(#[from] tracing::subscriber::SetGlobalDefaultError),
    /// The level cannot be changed any more.
    #[error("change the log level: {0}")]
    Level(#[from] reload::Error),
    /// There is no thread to write.
    #[error("start the log thread: {0}")]
    Thread(#[from] io::Error),
}

/// Makes this process log to stdout.
pub fn init(config: &LogConfig) -> Result<Telemetry, TelemetryError> {
    init_with(config, io::stdout())
}

/// Makes this process log somewhere else, such as stderr.
pub fn init_with(
    config: &LogConfig,
    out: impl Write + IsTerminal + Send + 'static,
) -> Result<Telemetry, TelemetryError> {
    let is_terminal = out.is_terminal();
    let format = match config.format {
        LogFormat::Text => Format::Text { colors: is_terminal },
        LogFormat::Auto if is_terminal => Format::Text { colors: true },
        LogFormat::Auto | LogFormat::Json => Format::Json,
    };
    let lines = Lines::start(out)?;
    let (subscriber, level) = subscriber(format, config.level, lines.clone());
    tracing::subscriber::set_global_default(subscriber)?;
    Ok(Telemetry { level, lines })
}

impl Telemetry {
    /// Changes the level from here on.
    pub fn set_level(&self, level: LogLevel) -> Result<(), TelemetryError> {
        Ok(self.level.reload(targets(level))?)
    }

    /// Lines dropped so far because stdout took none.
    pub fn dropped_lines(&self) -> u64 {
        self.lines.shared.dropped.load(Ordering::Relaxed)
    }

    /// Waits until what was logged so far is written, at most `deadline`. Blocks the thread.
    pub fn flush(&self, deadline: Duration) {
        self.lines.flush(deadline);
    }
}

/// Our own parts log at the level asked for. Libraries are quieter: what they say below `info` is
/// about themselves, and some of it holds what clients sent.
fn targets(level: LogLevel) -> Targets {
    let level = match level {
        LogLevel::Error => LevelFilter::ERROR,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Debug => LevelFilter::DEBUG,
        LogLevel::Trace => LevelFilter::TRACE,
    };
    // The crate `carillon_adapter` begins with the same word.
    Targets::new().with_default(level.min(LevelFilter::INFO)).with_target("carillon", level)
}

/// How lines look, resolved.
#[derive(Clone, Copy)]
enum Format {
    Text { colors: bool },
    Json,
}

fn subscriber(
    format: Format,
    level: LogLevel,
    lines: Lines,
) -> (Box<dyn Subscriber + Send + Sync>, reload::Handle<Targets, Registry>) {
    let (filter, handle) = reload::Layer::new(targets(level));
    let layer = tracing_subscriber::fmt::layer().with_writer(lines);
    let layer = match format {
        Format::Text { colors } => layer.with_ansi(colors).boxed(),
        // One object per line with the fields of the event at the top, so that a log shipper needs
        // no rules.
        Format::Json => layer.json().flatten_event(true).with_span_list(false).boxed(),
    };
    (Box::new(tracing_subscriber::registry().with(layer.with_filter(filter))), handle)
}

/// The way to the log thread, which lives as long as the process.
#[derive(Clone, Debug)]
struct Lines {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    queue: Mutex<Queue>,
    pushed: Condvar,
    written: Condvar,
    dropped: AtomicU64,
}

/// Lines that wait, and counts of all that ever did.
#[derive(Debug, Default)]
struct Queue {
    lines: Vec<Vec<u8>>,
    pushed: u64,
    written: u64,
}

impl Lines {
    fn start(out: impl Write + Send + 'static) -> Result<Self, io::Error> {
        let shared = Arc::new(Shared::default());
        let writing = shared.clone();
        thread::Builder::new().name("log".to_owned()).spawn(move || writing.write_lines(out))?;
        Ok(Self { shared })
    }

    fn push(&self, line: &[u8]) {
        let mut queue = self.shared.lock();
        if queue.lines.len() < QUEUE_LINES_MAX {
            queue.lines.push(line.to_vec());
            queue.pushed += 1;
            drop(queue);
            self.shared.pushed.notify_one();
        } else {
            self.shared.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn flush(&self, deadline: Duration) {
        let queue = self.shared.lock();
        let last = queue.pushed;
        // Whether it was written or the time is up, whoever waits goes on.
        drop(self.shared.written.wait_timeout_while(queue, deadline, |queue| queue.written < last));
    }
}

impl Shared {
    /// Nobody panics while holding the lock, and logging would not stop for it.
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Errors are not answered: there is nowhere left to say so.
    fn write_lines(&self, mut out: impl Write) {
        let mut told = 0;
        loop {
            let waiting = self.pushed.wait_while(self.lock(), |queue| queue.lines.is_empty());
            let lines = mem::take(&mut waiting.unwrap_or_else(PoisonError::into_inner).lines);
            for line in &lines {
                drop(out.write_all(line));
            }
            drop(out.flush());
            self.lock().written += lines.len() as u64;
            self.written.notify_all();
            let dropped = self.dropped.load(Ordering::Relaxed);
            if dropped > told {
                let lost = dropped - told;
                tracing::warn!(log.lines_dropped = lost, "stdout was blocked, log lines are lost");
                told = dropped;
            }
        }
    }
}

impl<'a> MakeWriter<'a> for Lines {
    type Writer = LineWriter<'a>;
    fn make_writer(&'a self) -> LineWriter<'a> {
        LineWriter(self)
    }
}

/// Takes one line; the formatter writes each event at once.
struct LineWriter<'a>(&'a Lines);

impl Write for LineWriter<'_> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.0.push(line);
        Ok(line.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    /// An output that can be blocked.
    #[derive(Clone, Default)]
    struct Pipe(Arc<(Mutex<State>, Condvar)>);

    #[derive(Default)]
    struct State {
        blocked: bool,
        /// Whether a write waits for the pipe.
        waiting: bool,
        bytes: Vec<u8>,
    }

    impl Write for Pipe {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let mut state = self.state();
            while state.blocked {
                state.waiting = true;
                self.0.1.notify_all();
                state = self.0.1.wait(state).expect("no test panics with the lock");
            }
            state.bytes.extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl Pipe {
        fn state(&self) -> MutexGuard<'_, State> {
            self.0.0.lock().expect("no test panics with the lock")
        }
        fn lines(&self) -> Vec<Value> {
            let bytes = self.state().bytes.clone();
            let text = String::from_utf8(bytes).expect("lines are UTF-8");
            text.lines().map(|line| serde_json::from_str(line).expect("a JSON object")).collect()
        }
    }

    const DEADLINE: Duration = Duration::from_secs(20);

    #[test]
    fn json_lines_hold_the_fields_at_the_top() {
        let pipe = Pipe::default();
        let lines = Lines::start(pipe.clone()).expect("a thread");
        let (subscriber, level) = subscriber(Format::Json, LogLevel::Info, lines.clone());
        tracing::subscriber::with_default(subscriber, || {
            tracing::info!(target: "carillon", event = "listening", public = "127.0.0.1:1", "ready");
            tracing::debug!(target: "carillon", "not yet");
            level.reload(targets(LogLevel::Debug)).expect("the layer is alive");
            tracing::debug!(target: "carillon::engine", "now");
            tracing::debug!(target: "hyper", "a library");
        });
        lines.flush(DEADLINE);
        let lines = pipe.lines();
        assert_eq!(lines.len(), 2);
        assert_eq!(lines[0]["event"], "listening");
        assert_eq!(lines[0]["public"], "127.0.0.1:1");
        assert_eq!(lines[0]["message"], "ready");
        assert_eq!(lines[0]["level"], "INFO");
        assert!(lines[0]["timestamp"].is_string());
        assert_eq!(lines[1]["message"], "now");
    }

    #[test]
    fn a_blocked_output_drops_lines_and_blocks_nobody() {
        let pipe = Pipe::default();
        pipe.state().blocked = true;
        let lines = Lines::start(pipe.clone()).expect("a thread");
        let extra = 10;
        lines.push(b"{\"n\":0}\n");
        {
            // Once the writer waits in the pipe, it takes nothing more from the queue.
            let (_state, wait) = pipe
                .0
                .1
                .wait_timeout_while(pipe.state(), DEADLINE, |state| !state.waiting)
                .expect("no test panics with the lock");
            assert!(!wait.timed_out(), "nobody writes");
        }
        for _ in 0..QUEUE_LINES_MAX + extra {
            lines.push(b"{\"n\":1}\n");
        }
        assert_eq!(lines.shared.dropped.load(Ordering::Relaxed), extra as u64);
        pipe.state().blocked = false;
        pipe.0.1.notify_all();
        lines.flush(DEADLINE);
        assert_eq!(pipe.lines().len(), QUEUE_LINES_MAX + 1);
    }
}
