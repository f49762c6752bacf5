//! The state of a feed, as a training loop of others saves it.
//!
//! In: a recipe, data sets, a vocabulary and a cursor. Out: a [`FeedState`] as JSON, and whether
//! another feed may go on from it. Never: holds what may differ: ranks, threads, memory.

use std::collections::BTreeMap;

use catlip_schemas::{Cursor, Vocab};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::data_error::DataError;
use super::data_sets::DataSets;
use super::recipe::FeedRecipe;

/// Version of [`FeedState`].
const VERSION: u32 = 1;

/// Where a feed is, and what decides what comes next.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FeedState {
    version: u32,
    /// Where it goes on.
    pub cursor: Cursor,
    /// What decides rows, order, labels and views, by the keys of the recipe.
    decides: BTreeMap<String, Value>,
}

impl FeedState {
    /// The state of a feed at `cursor`.
    ///
    /// # Errors
    ///
    /// [`DataError::Prep`] for data sets without labels.
    pub fn new(
        recipe: &FeedRecipe,
        data: &DataSets,
        vocab: &Vocab,
        cursor: Cursor,
    ) -> Result<Self, DataError> {
        let FeedRecipe { data: of_data, train, sampler, augment, feed, .. } = recipe;
        let decides = [
            ("data", json!(data.identity())),
            ("vocabulary", json!(vocab.hash())),
            ("data.label_set", json!(data.rule()?)),
            ("data.labels", json!(of_data.labels)),
            ("data.weights", json!(of_data.weights)),
            ("data.holdout_percent", json!(of_data.holdout_percent)),
            ("train.batch", json!(train.batch)),
            ("train.image_px", json!(train.image_px)),
            ("train.seed", json!(train.seed)),
            ("sampler", json!(sampler)),
            ("augment.crop_area_min", json!(augment.crop_area_min)),
            ("augment.crop_area_max", json!(augment.crop_area_max)),
            ("augment.crop_aspect_min", json!(augment.crop_aspect_min)),
            ("augment.crop_aspect_max", json!(augment.crop_aspect_max)),
            ("augment.flip", json!(augment.flip)),
            ("feed.lanes", json!(feed.lanes)),
            ("feed.window_bytes", json!(feed.window_bytes)),
            ("feed.last_batch", json!(feed.last_batch)),
        ];
        let decides = decides.into_iter().map(|(key, value)| (key.to_owned(), value)).collect();
        Ok(Self { version: VERSION, cursor, decides })
    }

    /// The state that a text holds.
    ///
    /// # Errors
    ///
    /// [`DataError::NoState`].
    pub fn parse(text: &str) -> Result<Self, DataError> {
        let no_state = |message: String| DataError::NoState { message };
        let state: Self = serde_json::from_str(text).map_err(|e| no_state(e.to_string()))?;
        match state.version {
            VERSION => Ok(state),
            other => Err(no_state(format!("it is of version {other}, expected {VERSION}"))),
        }
    }

    /// The text of it, JSON.
    pub fn text(&self) -> String {
        json!(self).to_string()
    }

    /// Refuses to go on from it as `other`, the state of this feed, if what comes next differs.
    ///
    /// # Errors
    ///
    /// [`DataError::OtherState`] with the first difference.
    pub fn check(&self, other: &Self) -> Result<(), DataError> {
        let none = Value::Null;
        let keys = self.decides.keys().chain(other.decides.keys());
        for key in keys {
            let of = |state: &Self| state.decides.get(key).unwrap_or(&none).clone();
            let (found, expected) = (of(self), of(other));
            if found != expected {
                let (found, expected) = (found.to_string(), expected.to_string());
                return Err(DataError::OtherState { key: key.clone(), found, expected });
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(batch: u64) -> FeedState {
        let decides = [("train.batch".to_owned(), json!(batch))].into();
        FeedState { version: VERSION, cursor: Cursor::start(1), decides }
    }

    #[test]
    fn a_state_is_text_and_back() {
        assert_eq!(FeedState::parse(&state(8).text()).unwrap(), state(8));
        let newer = state(8).text().replace("\"version\":1", "\"version\":2");
        let refused = FeedState::parse(&newer).unwrap_err().to_string();
        assert_eq!(refused, "this is no state of a feed: it is of version 2, expected 1");
        let refused = FeedState::parse("{}").unwrap_err().to_string();
        assert!(refused.starts_with("this is no state of a feed: missing field"), "{refused}");
    }

    #[test]
    fn a_state_of_another_order_is_refused() {
        assert!(state(8).check(&state(8)).is_ok());
        let refused = state(8).check(&state(9)).unwrap_err().to_string();
        assert_eq!(refused, "the state is of a feed with train.batch 8, this one has 9");
        let mut without = state(8);
        without.decides.clear();
        let refused = without.check(&state(9)).unwrap_err().to_string();
        assert_eq!(refused, "the state is of a feed with train.batch null, this one has 9");
    }
}
