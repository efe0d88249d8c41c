//! Tests on a real API server without a node: core and edge are host processes under their own accounts, tools' Pods are played by a
//! scripted shim with real tokens. Run by `cargo xtask test`.

mod admission;
mod calls;
mod chart;
mod crash;
mod examples;
mod fixtures;
mod gateway;
mod help;
mod orgs;
mod tenancy;

use std::process::ExitCode;

use polity_e2e::{Cluster, parts::Polity, runner::Suite};

fn main() -> ExitCode {
    if rustls::crypto::ring::default_provider().install_default().is_err() {
        eprintln!("TLS was set up before");
    }
    // Ends here when they make no sense, before anything is started.
    let listing = libtest_mimic::Arguments::from_args().list;
    let Ok(runtime) = tokio::runtime::Runtime::new() else { return ExitCode::FAILURE };
    let Ok(dir) = tempfile::Builder::new().prefix("polity-e2e-").tempdir() else { return ExitCode::FAILURE };
    let started = if listing {
        Err(anyhow::anyhow!("listing"))
    } else {
        runtime.block_on(async { Polity::start(Cluster::plane()?, dir.path()).await })
    };
    let polity = match started {
        Ok(polity) => polity,
        Err(error) => {
            eprintln!("Polity does not start: {error:#}");
            return ExitCode::FAILURE;
        }
    };
    Suite::new(polity)
        .test("chart_renders_with_default_and_all_values", |p| Box::pin(chart::renders(p)))
        .test("chart_refuses_values", |p| Box::pin(chart::refuses_values(p)))
        .test("members_have_their_rights_and_no_more", |p| Box::pin(chart::members_have_their_rights_and_no_more(p)))
        .test("parts_have_no_more_than_they_use", |p| Box::pin(chart::parts_have_no_more_than_they_use(p)))
        .test("examples_become_ready", |p| Box::pin(examples::become_ready(p)))
        .test("example_without_its_namespace_file", |p| Box::pin(examples::without_a_namespace_first(p)))
        .test("org_becomes_ready", |p| Box::pin(orgs::becomes_ready(p)))
        .test("call_allowed_runs_and_settles", |p| Box::pin(calls::allowed(p)))
        .test("call_denied_early_says_rule_reason_hint", |p| Box::pin(calls::denied(p)))
        .test("call_waits_for_a_person", |p| Box::pin(calls::waits(p)))
        .test("gateway_an_agent_acts", |p| Box::pin(gateway::an_agent_acts(p)))
        .test("gateway_results_that_do_not_fit", |p| Box::pin(gateway::results_that_do_not_fit(p)))
        .test("gateway_tokens_of_others_are_refused", |p| Box::pin(gateway::tokens_of_others_are_refused(p)))
        .test("gateway_an_idempotency_key_runs_once", |p| Box::pin(gateway::an_idempotency_key_runs_once(p)))
        .test("gateway_egress_is_refused", |p| Box::pin(gateway::egress_is_refused(p)))
        .test("gateway_malformed_requests_are_told", |p| Box::pin(gateway::malformed_requests_are_told(p)))
        .test("tenancy_an_agent_of_another_org_is_refused", |p| Box::pin(tenancy::an_agent_of_another_org_is_refused(p)))
        .test("tenancy_a_parent_binds_its_child", |p| Box::pin(tenancy::a_parent_binds_its_child(p)))
        .test("tenancy_a_child_cannot_have_more_than_its_parent", |p| Box::pin(tenancy::a_child_cannot_have_more_than_its_parent(p)))
        .test("tenancy_parents_stay_and_go_last", |p| Box::pin(tenancy::parents_stay_and_go_last(p)))
        .test("tenancy_somebodys_namespace_needs_consent", |p| Box::pin(tenancy::somebodys_namespace_needs_consent(p)))
        .test("tenancy_reserved_namespaces_are_refused", |p| Box::pin(tenancy::reserved_namespaces_are_refused(p)))
        .test("tenancy_a_unit_needs_the_verb_subdivide", |p| Box::pin(tenancy::a_unit_needs_the_verb_subdivide(p)))
        .test("admission_forged_callers_are_refused", |p| Box::pin(admission::forged_callers_are_refused(p)))
        .test("admission_forged_status_is_refused", |p| Box::pin(admission::forged_status_is_refused(p)))
        .test("admission_a_typo_in_a_rule_is_named", |p| Box::pin(admission::a_typo_in_a_rule_is_named(p)))
        .test("admission_a_cel_bomb_is_bounded", |p| Box::pin(admission::a_cel_bomb_is_bounded(p)))
        .test("admission_arguments_out_of_bounds", |p| Box::pin(admission::arguments_out_of_bounds(p)))
        .test("admission_a_dry_run_leaves_no_trace", |p| Box::pin(admission::a_dry_run_leaves_no_trace(p)))
        .test("admission_an_early_denial_is_noted", |p| Box::pin(admission::an_early_denial_is_noted(p)))
        .test("admission_a_protected_policy_holds", |p| Box::pin(admission::a_protected_policy_holds(p)))
        .alone("crash_core_at_each_point_of_a_call", |p| Box::pin(crash::at_each_point_of_a_call(p)))
        .alone("crash_core_at_each_point_of_an_org", |p| Box::pin(crash::at_each_point_of_an_org(p)))
        .run(|polity| {
            let count = polity_e2e::ledger::check(&polity.dir.join("data"))?;
            println!("invariants hold over {count} ledger records");
            Ok(())
        })
}
