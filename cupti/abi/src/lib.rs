//! CUPTI's activity records and functions as every version from 11.8 on lays them out.
