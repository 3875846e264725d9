//! Control's answer as `weir explain -o json` has it. Must never rename a field: they are stable.

use serde::Serialize;
use weir_api::v1::{self, Criterion, RoutesInForce, Verdict, way::What};

use crate::{
    target::Source,
    wording::{self, Object, Port, Setting},
};

/// All of it; field names are stable.
#[derive(Debug, Serialize)]
pub(crate) struct Answer {
    pub(crate) from: Client,
    pub(crate) service: Port,
    pub(crate) protocol: Setting,
    pub(crate) request: Request,
    /// `none`, `producer`, `consumer`.
    pub(crate) routes_in_force: &'static str,
    /// The ways that it may go; one at least.
    pub(crate) outcome: Vec<Way>,
    /// Null: none of the rules is for it, or there are no routes.
    pub(crate) rule: Option<Rule>,
    pub(crate) candidates: Vec<Candidate>,
    pub(crate) candidates_left_out: u32,
    pub(crate) not_asked: Vec<Aside>,
    pub(crate) settings: Vec<Setting>,
    pub(crate) notes: Vec<String>,
}

#[derive(Debug, Serialize)]
pub(crate) struct Client {
    pub(crate) namespace: String,
    /// Empty: any pod of the namespace.
    pub(crate) kind: String,
    pub(crate) name: String,
    pub(crate) pods: u32,
    pub(crate) pods_meshed: u32,
}

#[derive(Debug, Serialize)]
pub(crate) struct Request {
    pub(crate) method: String,
    pub(crate) authority: String,
    pub(crate) path: String,
}

#[derive(Debug, Default, Serialize)]
pub(crate) struct Way {
    pub(crate) percent: f64,
    /// `forward`, `redirect`, `preflight`, `failure`.
    pub(crate) result: &'static str,
    /// Of `forward`.
    pub(crate) service: Option<Port>,
    pub(crate) is_itself: bool,
    pub(crate) is_opaque: bool,
    pub(crate) endpoints: u32,
    pub(crate) ready_endpoints: u32,
    /// Of what the node answers itself; 0: the server answers.
    pub(crate) status: u32,
    pub(crate) grpc_code: Option<u32>,
    /// Of `redirect`.
    pub(crate) location: String,
    /// Of `preflight`: `name: value`.
    pub(crate) headers: Vec<String>,
    /// Of `failure`.
    pub(crate) reason: String,
    pub(crate) filters: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Rule {
    pub(crate) route: Object,
    /// `spec.rules[rule].matches[match]`.
    pub(crate) rule: u32,
    #[serde(rename = "match")]
    pub(crate) matched: u32,
    pub(crate) condition: String,
    /// Of a ServiceProfile's route: its name, and `rule` is `spec.routes[rule]`; else empty.
    #[serde(rename = "rule_name", skip_serializing_if = "String::is_empty")]
    pub(crate) name: String,
}

#[derive(Debug, Serialize)]
pub(crate) struct Candidate {
    #[serde(flatten)]
    pub(crate) rule: Rule,
    pub(crate) hostnames: Vec<String>,
    /// `won`, `unmet`, `behind`.
    pub(crate) verdict: &'static str,
    /// What decided; empty for the winner.
    pub(crate) criterion: &'static str,
    /// Of the header or query parameter.
    pub(crate) name: String,
    /// For people.
    pub(crate) why: String,
}

#[derive(Debug, Serialize)]
pub(crate) struct Aside {
    pub(crate) route: Object,
    pub(crate) reason: String,
}

impl Answer {
    pub(crate) fn of(from: Source, given: v1::ExplainResponse) -> Answer {
        let routes_in_force = routes_in_force(given.routes_in_force());
        let candidates: Vec<Candidate> = given.candidates.into_iter().map(Candidate::of).collect();
        let won = candidates.iter().find(|candidate| candidate.verdict == "won");
        let aside = |aside: v1::RouteAside| Aside { route: Object::of(aside.route), reason: aside.reason };
        Answer {
            from: Client {
                namespace: from.namespace,
                kind: from.kind,
                name: from.name,
                pods: given.client_pods,
                pods_meshed: given.client_pods_meshed,
            },
            service: Port::of(given.service),
            protocol: Setting::of(given.protocol.unwrap_or_default()),
            request: Request { method: given.method, authority: given.authority, path: given.path },
            routes_in_force,
            outcome: given.ways.into_iter().map(Way::of).collect(),
            rule: won.map(|won| won.rule.clone()),
            candidates,
            candidates_left_out: given.candidates_left_out,
            not_asked: given.aside.into_iter().map(aside).collect(),
            settings: given.settings.into_iter().map(Setting::of).collect(),
            notes: given.notes,
        }
    }
}

/// As JSON has it.
pub(crate) fn routes_in_force(given: RoutesInForce) -> &'static str {
    match given {
        RoutesInForce::NoRoutes => "none",
        RoutesInForce::ProducerRoutes => "producer",
        RoutesInForce::ConsumerRoutes => "consumer",
        RoutesInForce::Unspecified => "unknown",
    }
}

impl Way {
    fn of(given: v1::Way) -> Way {
        let filters = given.filters.iter().map(wording::filter).collect();
        let way = Way { percent: given.percent, filters, ..Way::default() };
        match given.what {
            Some(What::Forward(forward)) => Way {
                result: "forward",
                service: Some(Port::of(forward.service)),
                is_itself: forward.is_itself,
                is_opaque: forward.is_opaque,
                endpoints: forward.endpoints,
                ready_endpoints: forward.ready_endpoints,
                ..way
            },
            Some(What::Redirect(redirect)) => {
                Way { result: "redirect", status: redirect.status_code, location: redirect.location, ..way }
            }
            Some(What::Preflight(answer)) => {
                let headers = answer.headers.into_iter().map(|header| format!("{}: {}", header.name, header.value));
                Way { result: "preflight", status: 204, headers: headers.collect(), ..way }
            }
            Some(What::Failure(failure)) => Way {
                result: "failure",
                status: failure.http_status,
                grpc_code: failure.grpc_code,
                reason: failure.reason,
                ..way
            },
            None => Way { result: "unknown", ..way },
        }
    }
}

impl Candidate {
    fn of(given: v1::Candidate) -> Candidate {
        let (verdict, criterion) = (given.verdict(), given.criterion());
        let why = why(verdict, criterion, &given.name);
        let of_profile = || given.profile_condition.as_ref().map(wording::profile_condition);
        let condition = given.condition.as_ref().map(wording::condition).or_else(of_profile).unwrap_or_default();
        let (route, matched) = (Object::of(given.route), given.r#match);
        Candidate {
            rule: Rule { route, rule: given.rule, matched, condition, name: given.rule_name },
            hostnames: given.hostnames,
            verdict: match verdict {
                Verdict::Won => "won",
                Verdict::Unmet => "unmet",
                Verdict::Behind => "behind",
                Verdict::Unspecified => "unknown",
            },
            criterion: name(criterion),
            name: given.name,
            why,
        }
    }
}

/// As JSON has it.
fn name(criterion: Criterion) -> &'static str {
    match criterion {
        Criterion::Unspecified => "",
        Criterion::Hostname => "hostname",
        Criterion::Path => "path",
        Criterion::Condition => "condition",
        Criterion::GrpcService => "grpc_service",
        Criterion::GrpcMethod => "grpc_method",
        Criterion::Method => "method",
        Criterion::Header => "header",
        Criterion::QueryParam => "query_param",
        Criterion::PathKind => "path_kind",
        Criterion::PathLength => "path_length",
        Criterion::GrpcCall => "grpc_call",
        Criterion::Headers => "headers",
        Criterion::QueryParams => "query_params",
        Criterion::RouteAge => "route_age",
        Criterion::RouteName => "route_name",
        Criterion::RuleOrder => "rule_order",
        Criterion::MatchOrder => "match_order",
    }
}

fn why(verdict: Verdict, criterion: Criterion, name: &str) -> String {
    let text = match (verdict, criterion) {
        (Verdict::Won, _) => "",
        (Verdict::Unmet, Criterion::Hostname) => "for another host",
        (Verdict::Unmet, Criterion::Path) => "for another path",
        (Verdict::Unmet, Criterion::GrpcService) => "for another gRPC service",
        (Verdict::Unmet, Criterion::GrpcMethod) => "for another gRPC method",
        (Verdict::Unmet, Criterion::Method) => "for another method",
        (Verdict::Unmet, Criterion::Header) => return format!("header {name} is not as it asks"),
        (Verdict::Unmet, Criterion::QueryParam) => return format!("query parameter {name} is not as it asks"),
        (Verdict::Unmet, Criterion::Condition) => "its condition does not hold",
        (Verdict::Behind, Criterion::Hostname) => "holds; the winner's host name is more specific",
        (Verdict::Behind, Criterion::PathKind) => {
            "holds; the winner's kind goes first (Exact, gRPC, RegularExpression, PathPrefix)"
        }
        (Verdict::Behind, Criterion::PathLength) => "holds; the winner's prefix is longer",
        (Verdict::Behind, Criterion::GrpcCall) => "holds; the winner says more of the gRPC service or method",
        (Verdict::Behind, Criterion::Method) => "holds; the winner asks for the method",
        (Verdict::Behind, Criterion::Headers) => "holds; the winner asks for more headers",
        (Verdict::Behind, Criterion::QueryParams) => "holds; the winner asks for more query parameters",
        (Verdict::Behind, Criterion::RouteAge) => "holds; the winner's route is older",
        (Verdict::Behind, Criterion::RouteName) => {
            "holds; the winner's route is as old and comes first by namespace and name"
        }
        (Verdict::Behind, Criterion::RuleOrder) => "holds; the winner is an earlier rule of the route",
        (Verdict::Behind, Criterion::MatchOrder) => "holds; the winner is an earlier match of the rule",
        _newer => "for a reason that this program does not know; use the `weir` of control's version",
    };
    text.to_owned()
}
