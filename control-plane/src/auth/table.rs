//! The one table of what each call needs. A call of the protos without an entry, or an entry without a call, fails a test.

use proxyxai_core::access::Permission::{
    self, Govern, Known, Public, Read, ReadDeployment, Serve, Write, WriteDeployment,
};

/// Calls by package and service, and what each of them needs.
const TABLE: &[(&str, &[(&str, Permission)])] = &[
    (
        "proxyxai.admin.v1.AccountService",
        &[
            ("CreateAccount", Write),
            ("ListAccounts", Read),
            ("GetAccount", Read),
            ("UpdateAccount", Govern),
            ("DeleteAccount", Govern),
        ],
    ),
    (
        "proxyxai.admin.v1.KeyService",
        &[
            ("CreateKey", Write),
            ("ListKeys", Read),
            ("GetKey", Read),
            ("UpdateKey", Write),
            ("RotateKey", Write),
            ("DeleteKey", Write),
        ],
    ),
    (
        "proxyxai.admin.v1.CredentialService",
        &[
            ("WhoAmI", Known),
            ("CreateCredential", Write),
            ("ListCredentials", Read),
            ("GetCredential", Read),
            ("UpdateCredential", Write),
            ("RotateCredential", Write),
            ("DeleteCredential", Write),
        ],
    ),
    (
        "proxyxai.admin.v1.ProviderService",
        &[
            ("CreateProvider", WriteDeployment),
            ("ListProviders", ReadDeployment),
            ("GetProvider", ReadDeployment),
            ("UpdateProvider", WriteDeployment),
            ("DeleteProvider", WriteDeployment),
        ],
    ),
    (
        "proxyxai.admin.v1.UpstreamKeyService",
        &[
            ("CreateUpstreamKey", WriteDeployment),
            ("ListUpstreamKeys", ReadDeployment),
            ("GetUpstreamKey", ReadDeployment),
            ("UpdateUpstreamKey", WriteDeployment),
            ("DeleteUpstreamKey", WriteDeployment),
        ],
    ),
    (
        "proxyxai.admin.v1.RouteService",
        &[
            ("CreateRoute", WriteDeployment),
            ("ListRoutes", ReadDeployment),
            ("GetRoute", ReadDeployment),
            ("UpdateRoute", WriteDeployment),
            ("DeleteRoute", WriteDeployment),
        ],
    ),
    (
        "proxyxai.admin.v1.PriceService",
        &[
            ("ListPriceTables", ReadDeployment),
            ("GetPriceTable", ReadDeployment),
            ("PutPriceTable", WriteDeployment),
            ("ActivatePriceTable", WriteDeployment),
            ("DeletePriceTable", WriteDeployment),
        ],
    ),
    // What a manifest changes is asked for object by object, too.
    (
        "proxyxai.admin.v1.ManifestService",
        &[
            ("GetManifest", Read),
            ("QueryChanges", Read),
            ("ApplyManifest", Write),
        ],
    ),
    (
        "proxyxai.admin.v1.UsageQueryService",
        &[("QueryUsage", Read)],
    ),
    (
        "proxyxai.admin.v1.AuditService",
        &[
            ("ListAuditRecords", Read),
            ("GetAuditChain", ReadDeployment),
        ],
    ),
    (
        "proxyxai.admin.v1.JoinTokenService",
        &[
            ("CreateJoinToken", WriteDeployment),
            ("ListJoinTokens", ReadDeployment),
            ("RevokeJoinToken", WriteDeployment),
        ],
    ),
    (
        "proxyxai.admin.v1.NodeService",
        &[
            ("ListNodes", ReadDeployment),
            ("ListWithheld", ReadDeployment),
            ("WaitApplied", ReadDeployment),
            ("ScheduleNode", WriteDeployment),
            ("RemoveNode", WriteDeployment),
        ],
    ),
    (
        "proxyxai.admin.v1.SecretService",
        &[
            ("GetKeyring", ReadDeployment),
            ("RotateKeyring", WriteDeployment),
        ],
    ),
    // It changes nothing, but whoever has the file has everything but the secrets; that it was taken is recorded.
    (
        "proxyxai.admin.v1.BackupService",
        &[("Backup", WriteDeployment)],
    ),
    (
        "proxyxai.admin.v1.LogService",
        &[
            ("GetLogLevel", ReadDeployment),
            ("SetLogLevel", WriteDeployment),
        ],
    ),
    (
        "proxyxai.admin.v1.SettingsService",
        &[
            ("GetSettings", ReadDeployment),
            ("UpdateSettings", WriteDeployment),
        ],
    ),
    // What lets a node in is its join token, or its renewal secret.
    (
        "proxyxai.node.v1.JoinService",
        &[("Join", Public), ("Renew", Public)],
    ),
    (
        "proxyxai.config.v1.ConfigService",
        &[("Stream", Serve), ("ResolveKeys", Serve)],
    ),
    ("proxyxai.usage.v1.UsageService", &[("Report", Serve)]),
    // Health and the schema hold nothing of a deployment.
    (
        "grpc.health.v1.Health",
        &[("Check", Public), ("Watch", Public)],
    ),
    (
        "grpc.reflection.v1.ServerReflection",
        &[("ServerReflectionInfo", Public)],
    ),
    (
        "grpc.reflection.v1alpha.ServerReflection",
        &[("ServerReflectionInfo", Public)],
    ),
];

/// The name of the call behind a path such as `/package.Service/Call`, and what it needs.
pub(super) fn find(path: &str) -> Option<(&'static str, Permission)> {
    let (service, call) = path.strip_prefix('/')?.split_once('/')?;
    let (_, calls) = TABLE.iter().find(|(name, _)| *name == service)?;
    calls.iter().find(|(name, _)| *name == call).copied()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use prost::Message as _;

    use super::*;

    #[test]
    fn every_call_of_the_protos_has_an_entry_and_every_entry_a_call() {
        let sets = [
            proxyxai_proto::DESCRIPTORS,
            tonic_health::pb::FILE_DESCRIPTOR_SET,
            tonic_reflection::pb::v1::FILE_DESCRIPTOR_SET,
            tonic_reflection::pb::v1alpha::FILE_DESCRIPTOR_SET,
        ];
        let mut calls = BTreeSet::new();
        for set in sets {
            let set = prost_types::FileDescriptorSet::decode(set).unwrap();
            for file in set.file {
                for service in &file.service {
                    for method in &service.method {
                        calls.insert(format!(
                            "/{}.{}/{}",
                            file.package(),
                            service.name(),
                            method.name()
                        ));
                    }
                }
            }
        }
        let entries: BTreeSet<String> = TABLE
            .iter()
            .flat_map(|(service, calls)| {
                calls
                    .iter()
                    .map(move |(call, _)| format!("/{service}/{call}"))
            })
            .collect();
        let missing: Vec<_> = calls.difference(&entries).collect();
        let idle: Vec<_> = entries.difference(&calls).collect();
        assert!(missing.is_empty(), "no permission is named for {missing:?}");
        assert!(idle.is_empty(), "there is no such call: {idle:?}");
        let count: usize = TABLE.iter().map(|(_, calls)| calls.len()).sum();
        assert_eq!(count, entries.len(), "an entry stands twice");
    }

    #[test]
    fn only_whole_paths_are_found() {
        assert!(find("/proxyxai.admin.v1.KeyService/ListKeys").is_some());
        for malformed in [
            "proxyxai.admin.v1.KeyService/ListKeys",
            "/proxyxai.admin.v1.KeyService/ListKeys/",
            "/proxyxai.admin.v1.KeyService/",
            "/proxyxai.admin.v1.KeyService",
            "//ListKeys",
            "/",
            "",
            "/x.Y/Z",
        ] {
            assert_eq!(find(malformed), None, "{malformed}");
        }
    }

    #[test]
    fn names_of_calls_tell_what_they_need() {
        // A mistake in the table would most likely be a change that needs no more than a look does.
        for (service, calls) in TABLE {
            for (call, permission) in *calls {
                let looks = ["List", "Get", "Query", "WaitApplied", "WhoAmI"];
                if service.starts_with("proxyxai.admin.") {
                    let looks = looks.iter().any(|word| call.starts_with(word));
                    assert_eq!(permission.changes(), !looks, "{service}/{call}");
                }
            }
        }
    }
}
