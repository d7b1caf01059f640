//! The generator against the floor: everything arrives, and what does not is noticed.

use std::process::{Command, Output};

fn bench(fault: Option<&str>, scenarios: &str) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_carillon-bench"));
    // Cargo has put both binaries into one directory.
    command
        .args(["run", "--program", "floor", "--scenarios", scenarios, "--patience", "2"])
        .args(["--seconds", "0.05", "--sockets", "20", "--idle", "10,50", "--connects", "20"])
        .args(["--loadtest", env!("CARGO_MANIFEST_DIR")]);
    if let Some(fault) = fault {
        command.env("FLOOR_FAULT", fault);
    }
    command.output().expect("the load generator can be started")
}

fn text(output: &Output) -> String {
    format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}

#[test]
fn every_scenario_succeeds_on_a_server_without_faults() {
    let all = "idle,broadcast-burst,broadcast-single,echo,join,direct,connect";
    let output = bench(None, all);
    let text = text(&output);
    assert!(output.status.success(), "{text}");
    assert_eq!(text.matches("ok=true").count(), 7, "{text}");
    assert!(text.contains("bytes_per_connection_50="), "{text}");
}

#[test]
fn a_lost_a_second_and_a_misplaced_message_fail_the_run() {
    for (fault, named) in
        [("lose", "did not come: lost"), ("duplicate", "duplicated"), ("swap", "out_of_order")]
    {
        let output = bench(Some(fault), "broadcast-burst");
        let text = text(&output);
        assert!(!output.status.success(), "{fault}: {text}");
        assert!(text.contains("ok=false") && text.contains(named), "{fault}: {text}");
        if fault != "lose" {
            assert!(!text.contains(&format!("{named}: 0")), "{fault}: {text}");
        }
    }
}
