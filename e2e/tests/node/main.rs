//! Tests on a real node: Polity is installed with Helm, agents and tools are Pods. Run by `cargo xtask test` as root on Linux.

mod acme;
mod containers;
mod faults;
mod fixtures;
mod hello;
mod helm;
mod http;
mod node;
mod scale;
mod upstream;

use std::process::ExitCode;

use node::Node;
use polity_e2e::runner::Suite;

fn main() -> ExitCode {
    if rustls::crypto::ring::default_provider().install_default().is_err() {
        eprintln!("TLS was set up before");
    }
    let node = match Node::from_env() {
        Ok(node) => node,
        Err(error) => {
            eprintln!("no node to test on: {error:#}");
            return ExitCode::FAILURE;
        }
    };
    Suite::new(node)
        .test("acme_an_agent_makes_its_three_calls", |n| Box::pin(acme::three_calls(n)))
        .test("acme_http_tool_of_its_own_namespace", |n| Box::pin(http::own_service(n)))
        .test("hello_greets", |n| Box::pin(hello::greets(n)))
        .test("container_result_and_surroundings", |n| Box::pin(containers::result_and_surroundings(n)))
        .test("container_failure_has_its_stderr", |n| Box::pin(containers::failure(n)))
        .test("container_secret_is_masked", |n| Box::pin(containers::secret_is_masked(n)))
        .test("container_secret_of_another_is_refused", |n| Box::pin(containers::secret_of_another_is_refused(n)))
        .test("container_time_out_kills", |n| Box::pin(containers::time_out_kills(n)))
        .test("container_image_cannot_be_got", |n| Box::pin(containers::image_cannot_be_got(n)))
        .test("container_result_too_large", |n| Box::pin(containers::result_too_large(n)))
        .test("container_run_of_another_is_closed", |n| Box::pin(containers::run_of_another_is_closed(n)))
        .test("container_cancel_is_no_undoing", |n| Box::pin(containers::cancel_of_a_running_tool_is_no_undoing(n)))
        .test("http_cluster_addresses_are_refused", |n| Box::pin(http::cluster_addresses_are_refused(n)))
        .test("http_runs_once_allowed", |n| Box::pin(http::runs_once_allowed(n)))
        .test("upstream_pinned_called_and_quarantined", |n| Box::pin(upstream::pinned_called_and_quarantined(n)))
        .test("scale_workers_follow", |n| Box::pin(scale::workers_follow(n)))
        .test("scale_suspended_org_has_no_workers", |n| Box::pin(scale::suspended_org_has_no_workers(n)))
        .alone("fault_core_is_killed_three_times", |n| Box::pin(faults::core_is_killed(n)))
        .alone("fault_edge_goes_under_load", |n| Box::pin(faults::edge_goes(n)))
        .alone("fault_edges_die_in_an_http_call", |n| Box::pin(http::edges_die_in_the_middle(n)))
        .alone("helm_uninstall_keeps_organisations", |n| Box::pin(helm::life(n)))
        .run(|node| {
            let count = polity_e2e::ledger::check(&node.data()?)?;
            println!("invariants hold over {count} ledger records");
            Ok(())
        })
}
