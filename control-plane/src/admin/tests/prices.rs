//! Tables of list prices.

use proxyxai_core::{money::price::SHIPPED, route::provider::ProviderKind};
use proxyxai_proto::admin::v1::{
    ActivatePriceTableRequest, DeletePriceTableRequest, GetPriceTableRequest,
    ListPriceTablesRequest, PriceTableView, PutPriceTableRequest,
    price_service_server::PriceService as _,
};
use tonic::{Code, Status};

use super::{World, by_root, fields, refused};

/// A table with one price.
fn table(version: &str, input: u64) -> Vec<u8> {
    format!(
        r#"{{"version":"{version}","date":"2026-01-01","source":"test","families":{{"openai":[{{"model":"m","match":["m"],"standard":{{"rates":{{"input":{input},"output":{input}}}}}}}]}}}}"#
    )
    .into_bytes()
}

impl World {
    async fn put(&self, content: &[u8]) -> Result<PriceTableView, Status> {
        let request = PutPriceTableRequest {
            content: content.to_vec(),
        };
        let put = self.prices.put_price_table(by_root(request)).await?;
        Ok(put.into_inner().price_table.unwrap())
    }

    async fn activate(
        &self,
        version: &str,
        resource_version: u64,
    ) -> Result<PriceTableView, Status> {
        let request = ActivatePriceTableRequest {
            version: version.into(),
            resource_version,
        };
        let done = self.prices.activate_price_table(by_root(request)).await?;
        Ok(done.into_inner().price_table.unwrap())
    }

    async fn versions(&self) -> Vec<(String, bool)> {
        let request = by_root(ListPriceTablesRequest::default());
        let page = self
            .prices
            .list_price_tables(request)
            .await
            .unwrap()
            .into_inner();
        page.price_tables
            .into_iter()
            .map(|one| (one.version, one.active))
            .collect()
    }

    /// Whether requests that begin now have a price for the model `m`.
    fn prices_m(&self) -> bool {
        let state = self.config.state();
        state
            .snapshot
            .prices
            .price(ProviderKind::Openai, "m")
            .is_some()
    }
}

#[tokio::test]
async fn one_table_is_in_force_and_none_ever_changes() {
    let world = World::new().await;
    let (shipped, _) = world.versions().await.remove(0);
    let put = world.put(&table("a-1", 5)).await.unwrap();
    assert_eq!(
        (put.active, put.models, put.date.as_str()),
        (false, 1, "2026-01-01")
    );
    assert!(!world.prices_m());
    assert_eq!(
        world.put(&table("a-1", 5)).await.unwrap(),
        put,
        "the same table again"
    );
    let other = world.put(&table("a-1", 6)).await;
    assert_eq!(fields(other.clone()), ["content"]);
    refused(other, Code::InvalidArgument, "a version never changes");
    refused(
        world.activate("a-1", 1).await,
        Code::Aborted,
        "read it again",
    );
    let active = world.activate("a-1", put.resource_version).await.unwrap();
    assert!(active.active && world.prices_m());
    assert_eq!(
        world.versions().await,
        [(shipped.clone(), false), ("a-1".into(), true)]
    );
    let delete = |version: &str| {
        world
            .prices
            .delete_price_table(by_root(DeletePriceTableRequest {
                version: version.into(),
                resource_version: 0,
            }))
    };
    refused(
        delete("a-1").await,
        Code::FailedPrecondition,
        "is in force; activate another one first",
    );
    refused(
        world.activate("none", 0).await,
        Code::NotFound,
        "there is no price table `none`",
    );
    let get = |version: &str| {
        world.prices.get_price_table(by_root(GetPriceTableRequest {
            version: version.into(),
        }))
    };
    assert_eq!(get("").await.unwrap().into_inner().content, table("a-1", 5));
    assert_eq!(get(&shipped).await.unwrap().into_inner().content, SHIPPED);
    world.activate(&shipped, 0).await.unwrap();
    delete("a-1").await.unwrap();
    assert_eq!(world.versions().await, [(shipped, true)]);
}

#[tokio::test]
async fn a_table_that_cannot_be_used_is_refused_when_it_is_put() {
    let world = World::new().await;
    for (content, want) in [
        (b"{}".to_vec(), "missing field"),
        (b"nothing".to_vec(), "expected"),
        (table("", 1), "the version of a price table has"),
        (table("a/b", 1), "letters, digits"),
        (
            br#"{"version":"x","date":"d","source":"s","families":{},"more":1}"#.to_vec(),
            "unknown field",
        ),
        (vec![b' '; (400 << 10) + 1], "at most 409600 bytes"),
    ] {
        let refusal = world.put(&content).await;
        assert_eq!(fields(refusal.clone()), ["content"]);
        refused(refusal, Code::InvalidArgument, want);
    }
    for number in 1..8 {
        world
            .put(&table(&format!("t{number}"), number))
            .await
            .unwrap();
    }
    refused(
        world.put(&table("t8", 8)).await,
        Code::FailedPrecondition,
        "there are 8 price tables",
    );
}
