//! Tests on a real API server without a node: core and edge are host processes under their own accounts, tools' Pods are played by a
//! scripted shim with real tokens. Run by `cargo xtask test`.

mod admission;
mod approvals;
mod badinput;
mod budgets;
mod calls;
mod chart;
mod cli;
mod counters;
mod crash;
mod cut;
mod edges;
mod events;
mod examples;
mod fixtures;
mod full;
mod gateway;
mod guards;
mod help;
mod lifecycle;
mod mcp;
mod notices;
mod oidc;
mod orgs;
mod postgres;
mod races;
mod records;
mod restarts;
mod results;
mod rewrites;
mod rollout;
mod stored;
mod tenancy;
mod tokens;
mod upstream;
mod versions;
mod writes;

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
        .test("call_of_an_image_that_is_missing", |p| Box::pin(calls::image_is_missing(p)))
        .test("call_denied_early_says_rule_reason_hint", |p| Box::pin(calls::denied(p)))
        .test("call_waits_for_a_person", |p| Box::pin(calls::waits(p)))
        .test("gateway_an_agent_acts", |p| Box::pin(gateway::an_agent_acts(p)))
        .test("gateway_results_that_do_not_fit", |p| Box::pin(gateway::results_that_do_not_fit(p)))
        .test("gateway_tokens_of_others_are_refused", |p| Box::pin(gateway::tokens_of_others_are_refused(p)))
        .test("gateway_an_idempotency_key_runs_once", |p| Box::pin(gateway::an_idempotency_key_runs_once(p)))
        .test("gateway_egress_is_refused", |p| Box::pin(gateway::egress_is_refused(p)))
        .test("gateway_malformed_requests_are_told", |p| Box::pin(gateway::malformed_requests_are_told(p)))
        .test("mcp_official_clients_work_unchanged", |p| Box::pin(mcp::official_clients_work_unchanged(p)))
        .test("mcp_clients_cancel_their_calls", |p| Box::pin(mcp::clients_cancel_their_calls(p)))
        .test("mcp_conformance_suite", |p| Box::pin(mcp::conformance_suite(p)))
        .test("mcp_an_approved_call_is_resumed", |p| Box::pin(mcp::an_approved_call_is_resumed(p)))
        .test("cli_explains_what_the_cluster_decides", |p| Box::pin(cli::explains_what_the_cluster_decides(p)))
        .test("cli_answers_and_ends_as_documented", |p| Box::pin(cli::answers_and_ends_as_documented(p)))
        .test("upstream_servers_of_others_are_pinned_and_called", |p| Box::pin(upstream::servers_of_others(p)))
        .test("upstream_only_what_is_pinned_is_called", |p| Box::pin(upstream::only_what_is_pinned(p)))
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
        .test("budgets_the_sixth_of_five_is_denied", |p| Box::pin(budgets::the_sixth_of_five_is_denied(p)))
        .test("budgets_money_is_reserved_and_given_back", |p| Box::pin(budgets::money_is_reserved_and_given_back(p)))
        .test("budgets_a_parents_budget_binds_its_child", |p| Box::pin(budgets::a_parents_budget_binds_its_child(p)))
        .test("budgets_racing_calls_begin_exactly_as_often", |p| Box::pin(budgets::racing_calls_begin_exactly_as_often(p)))
        .test("budgets_racing_requests_begin_exactly_as_often", |p| Box::pin(budgets::racing_requests_begin_exactly_as_often(p)))
        .test("counters_five_times_49_asks_and_one_does_not", |p| Box::pin(counters::five_times_49_asks_and_one_does_not(p)))
        .test("counters_a_racing_loop_begins_exactly_as_often", |p| Box::pin(counters::a_racing_loop_begins_exactly_as_often(p)))
        .test("counters_nothing_is_sent_after_customer_data_was_read", |p| {
            Box::pin(counters::nothing_is_sent_after_customer_data_was_read(p))
        })
        .test("counters_a_parents_counter_counts_its_tree", |p| Box::pin(counters::a_parents_counter_counts_its_tree(p)))
        .test("counters_a_tool_is_asked_for_by_name", |p| Box::pin(counters::a_tool_is_asked_for_by_name(p)))
        .alone("rollout_what_enforce_would_have_denied", |p| Box::pin(rollout::what_enforce_would_have_denied(p)))
        .alone("counters_a_loop_is_stopped_also_after_a_crash", |p| Box::pin(counters::a_loop_is_stopped_also_after_a_crash(p)))
        .test("approvals_a_quorum_counts_different_people", |p| Box::pin(approvals::a_quorum_counts_different_people(p)))
        .test("approvals_one_no_denies", |p| Box::pin(approvals::one_no_denies(p)))
        .test("approvals_expiry_counts_as_denied", |p| Box::pin(approvals::expiry_counts_as_denied(p)))
        .test("approvals_an_approval_is_good_for_one_run", |p| Box::pin(approvals::an_approval_is_good_for_one_run(p)))
        .test("approvals_a_change_after_the_question_denies", |p| Box::pin(approvals::a_change_after_the_question_denies(p)))
        .alone("lifecycle_suspended_within_a_second", |p| Box::pin(lifecycle::suspended_within_a_second(p)))
        .test("results_nobody_sees_what_is_redacted", |p| Box::pin(results::nobody_sees_what_is_redacted(p)))
        .test("results_an_outcome_is_held_to_its_condition", |p| Box::pin(results::an_outcome_is_held_to_its_condition(p)))
        .test("notices_of_what_somebody_must_notice", |p| Box::pin(notices::of_what_somebody_must_notice(p)))
        .test("notices_of_outcomes_that_differ", |p| Box::pin(notices::of_outcomes_that_differ(p)))
        .test("rewrites_are_stored_run_and_recorded", |p| Box::pin(rewrites::are_stored_run_and_recorded(p)))
        .test("rewrites_never_change_a_stored_call", |p| Box::pin(rewrites::never_change_a_stored_call(p)))
        .test("lifecycle_nothing_starts_before_start_at", |p| Box::pin(lifecycle::nothing_starts_before_start_at(p)))
        .test("lifecycle_a_deleted_org_leaves_its_chain", |p| Box::pin(lifecycle::a_deleted_org_leaves_its_chain(p)))
        .test("lifecycle_canceled_calls_end", |p| Box::pin(lifecycle::canceled_calls_end(p)))
        .test("lifecycle_a_canceled_task_ends_its_calls", |p| Box::pin(lifecycle::a_canceled_task_ends_its_calls(p)))
        .test("lifecycle_a_lost_run_is_resolved_by_a_director", |p| Box::pin(lifecycle::a_lost_run_is_resolved_by_a_director(p)))
        .test("lifecycle_an_ended_call_is_cleared_away", |p| Box::pin(lifecycle::an_ended_call_is_cleared_away(p)))
        .test("records_through_the_edge", |p| Box::pin(records::through_the_edge(p)))
        .test("writes_of_a_new_org", |p| Box::pin(writes::of_a_new_org(p)))
        .test("writes_of_a_call", |p| Box::pin(writes::of_a_call(p)))
        .alone("lifecycle_deleted_while_polity_is_down", |p| Box::pin(lifecycle::deleted_while_polity_is_down(p)))
        .alone("writes_none_at_rest", |p| Box::pin(writes::none_at_rest(p)))
        .alone("crash_core_at_each_point_of_a_call", |p| Box::pin(crash::at_each_point_of_a_call(p)))
        .alone("crash_core_at_each_point_of_an_org", |p| Box::pin(crash::at_each_point_of_an_org(p)))
        .alone("badinput_without_a_guard_nothing_starts", |p| Box::pin(badinput::without_a_guard_nothing_starts(p)))
        .alone("badinput_without_webhooks_nothing_starts_and_nothing_stalls", |p| {
            Box::pin(badinput::without_webhooks_nothing_starts_and_nothing_stalls(p))
        })
        .alone("races_two_cores", |p| Box::pin(races::two_cores(p)))
        .alone("races_chaos", |p| Box::pin(races::chaos(p)))
        .test("lifecycle_calls_with_one_key_run_once", |p| Box::pin(lifecycle::calls_with_one_key_run_once(p)))
        .alone("guards_hold_alone", |p| Box::pin(guards::hold_alone(p)))
        .alone("stored_older_objects_stay_updatable", |p| Box::pin(stored::older_objects_stay_updatable(p)))
        .alone("edges_two_at_once", |p| Box::pin(edges::two_at_once(p)))
        .alone("events_whole_over_edges_and_restarts", |p| Box::pin(events::whole_over_edges_and_restarts(p)))
        .alone("events_what_retention_dropped_is_said", |p| Box::pin(events::what_retention_dropped_is_said(p)))
        .alone("oidc_tokens_name_the_users_of_the_api_server", |p| Box::pin(oidc::tokens_name_the_users_of_the_api_server(p)))
        .alone("edges_certificate_authority_rotates", |p| Box::pin(edges::certificate_authority_rotates(p)))
        .test("tokens_wrong_in_one_thing", |p| Box::pin(tokens::wrong_in_one_thing(p)))
        .alone("restarts_edge_under_load", |p| Box::pin(restarts::edge_under_load(p)))
        .alone("restarts_api_server_frozen", |p| Box::pin(restarts::api_server_frozen(p)))
        .alone("restarts_api_server_killed", |p| Box::pin(restarts::api_server_restarted(p)))
        .test("faults_a_policy_changes_under_load", |p| Box::pin(versions::a_policy_changes_under_load(p)))
        .test("faults_a_thousand_policies", |p| Box::pin(versions::a_thousand_policies(p)))
        .test("tokens_revoked_while_in_use", |p| Box::pin(tokens::revoked_while_in_use(p)))
        .alone("faults_watches_are_cut_silently", |p| Box::pin(cut::watches_are_cut_silently(p)))
        .alone_if(full::possible(), "faults_the_ledgers_disk_is_full", |p| Box::pin(full::the_ledgers_disk_is_full(p)))
        .alone("restarts_certificate_expired", |p| Box::pin(restarts::certificate_expired(p)))
        .alone("restarts_another_ledger", |p| Box::pin(restarts::another_ledger(p)))
        .alone("restarts_restored_ledger", |p| Box::pin(restarts::restored_ledger(p)))
        .alone("postgres_keeps_the_ledger_goes_and_comes_back", |p| Box::pin(postgres::keeps_the_ledger(p)))
        .test("tenancy_a_username_belongs_to_one_agent_of_a_tree", |p| Box::pin(tenancy::a_username_belongs_to_one_agent_of_a_tree(p)))
        .test("tenancy_a_deleted_namespace_is_made_anew", |p| Box::pin(tenancy::a_deleted_namespace_is_made_anew(p)))
        .run(|polity| {
            let count = polity_e2e::ledger::check(&polity.dir.join("data"))?;
            println!("invariants hold over {count} ledger records");
            Ok(())
        })
}
