//! The binary `carillon`: parse, load, run, exit code.

use std::process::ExitCode;
use std::time::Duration;

use carillon::app::{App, Ended, Order, workers};
use carillon::cli::{self, Command};
use carillon::config::Config;
use carillon::telemetry;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Exit code of a failure at run time, and of clients that were cut off.
const EXIT_FAILURE: u8 = 1;

/// Exit code of the first interrupt, as shells report it.
const EXIT_INTERRUPTED: u8 = 130;

fn main() -> ExitCode {
    // Connections are small and come and go: with huge pages much memory is resident that nobody
    // uses (measured at 10,000 idle connections: a third more). Without the call it just stays so.
    let _ = rustix::thread::disable_transparent_huge_pages(true);
    match read_command() {
        Ok(Command::Print(text)) => {
            print(&text);
            ExitCode::SUCCESS
        }
        Ok(Command::Serve { config, warnings }) => serve(*config, &warnings),
        Err(error) => {
            eprint!("{error}");
            ExitCode::from(error.code)
        }
    }
}

fn read_command() -> Result<Command, cli::CliError> {
    cli::parse(std::env::args_os(), std::env::vars_os())
}

fn print(text: &str) {
    use std::io::Write;
    // A reader that has seen enough, such as `head`, is no failure.
    let _ = std::io::stdout().write_all(text.as_bytes());
}

fn serve(config: Config, warnings: &[String]) -> ExitCode {
    let telemetry = match telemetry::init(&config.log) {
        Ok(telemetry) => telemetry,
        Err(error) => {
            eprintln!("carillon: {error}");
            return ExitCode::from(EXIT_FAILURE);
        }
    };
    for warning in warnings {
        tracing::warn!("{warning}");
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(workers(&config))
        .enable_all()
        .build();
    let result = runtime.map_err(anyhow::Error::from).and_then(|runtime| {
        let code = runtime.block_on(run(config, telemetry.clone()));
        runtime.shutdown_timeout(Duration::from_secs(1));
        code
    });
    let code = result.unwrap_or_else(|error| {
        tracing::error!(error = format!("{error:#}"), "carillon failed");
        EXIT_FAILURE
    });
    telemetry.flush(Duration::from_secs(1));
    ExitCode::from(code)
}

async fn run(config: Config, telemetry: telemetry::Telemetry) -> anyhow::Result<u8> {
    let app = App::build(config, telemetry).await?;
    let (orders, received) = mpsc::channel(4);
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut hangup = signal(SignalKind::hangup())?;
    let reread = || match read_command() {
        Ok(Command::Serve { config, .. }) => Ok(*config),
        Ok(Command::Print(_)) => Err("no configuration to serve".to_owned()),
        Err(error) => Err(error.to_string()),
    };
    let running = app.run(received, Box::new(reread));
    tokio::pin!(running);
    loop {
        let order = tokio::select! {
            ended = &mut running => {
                return Ok(if ended? == Ended::Drained { 0 } else { EXIT_FAILURE });
            }
            _ = terminate.recv() => Order::Drain,
            _ = hangup.recv() => Order::Reload,
            _ = interrupt.recv() => return Ok(EXIT_INTERRUPTED),
        };
        // A full channel holds orders of the same kinds already.
        let _ = orders.try_send(order);
    }
}
