"""The SQL functions that a declaration may call: those that are known to return the same value for the same arguments.

This is the only list of them. It was made from the catalogue of DuckDB 2.0 and read name by name, because the
catalogue's own notes do not suffice: it calls ``age(x)``, ``localtime`` and ``hash`` consistent. A function that is on
no list, such as one that a newer DuckDB adds, may not be called. A test compares the lists with the installed
catalogue; it says what to do when they differ.
"""

from __future__ import annotations

DUCKDB = "2.0"
"""The minor version of DuckDB whose catalogue the lists were read from."""


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


OPERATORS = _names("""
    != !__postfix !~~ !~~* % & && * ** + - ->> / // < <-> << <= <=> <@ = > >= >> @ @> ^ ^@ __between __cast | || ~ ~~
    ~~* ~~~
""") | {"is distinct from", "is not distinct from"}

SCALARS = _names("""
    abs acos acosh add age aggregate apply array_aggr array_aggregate array_apply array_cat array_concat
    array_contains array_cosine_distance array_cosine_similarity array_cross_product array_distance array_distinct
    array_dot_product array_extract array_filter array_grade_up array_has array_has_all array_has_any array_indexof
    array_inner_product array_intersect array_length array_negative_dot_product array_negative_inner_product
    array_position array_reduce array_resize array_reverse_sort array_select array_slice array_sort array_to_json
    array_transform array_unique array_value array_where array_zip ascii asin asinh atan atan2 atanh bar base64 bin
    binom bit_count bit_length bit_position bitstring cardinality cast_to_type cbrt ceil ceiling century char_length
    character_length chr concat concat_ws constant_or_null contains cos cosh cot damerau_levenshtein date_diff
    date_part date_sub date_trunc datediff datepart datesub datetrunc day dayname dayofmonth dayofweek dayofyear
    decade decimal_division decode degrees divide editdist3 element_at encode ends_with enum_code enum_first enum_last
    enum_range enum_range_boundary epoch epoch_ms epoch_ns epoch_us equi_width_bins era error even exp factorial
    filter flatten floor format format_bytes formatreadabledecimalsize formatreadablesize from_base64 from_binary
    from_hex from_json from_json_strict gamma gcd generate_series get_bit grade_up greatest greatest_common_divisor
    hamming hex hive_partition_component hour ilike_escape instr isfinite isinf isnan isodow isoyear jaccard
    jaro_similarity jaro_winkler_similarity json_array json_array_length json_contains json_deep_merge json_exists
    json_extract json_extract_path json_extract_path_text json_extract_string json_insert json_keys json_merge_patch
    json_merge_patch_diff json_normalize json_object json_pretty json_quote json_remove json_replace json_set
    json_strip_nulls json_structure json_transform json_transform_strict json_type json_valid json_value julian
    last_day lcase lcm least least_common_multiple left left_grapheme len length length_grapheme levenshtein lgamma
    like_escape list_aggr list_aggregate list_apply list_cat list_concat list_contains list_cosine_distance
    list_cosine_similarity list_distance list_distinct list_dot_product list_element list_extract list_filter
    list_grade_up list_has list_has_all list_has_any list_indexof list_inner_product list_intersect
    list_negative_dot_product list_negative_inner_product list_pack list_position list_reduce list_resize
    list_reverse_sort list_select list_slice list_sort list_transform list_unique list_value list_where list_zip ln
    log log10 log2 lower lpad ltrim make_date make_time make_timestamp make_timestamp_ms make_timestamp_ns
    make_timestamptz map map_concat map_contains map_entries map_extract map_extract_value map_from_entries map_keys
    map_values md5 md5_number microsecond millennium millisecond minute mismatches mod month monthname multiply
    nanosecond nextafter nfc_normalize normalized_interval not_ilike_escape not_like_escape octet_length ord overlay
    parse_dirname parse_dirpath parse_filename parse_formatted_bytes parse_path path_join pi position pow power prefix
    printf quarter radians range reduce regexp_escape regexp_extract regexp_extract_all regexp_full_match
    regexp_matches regexp_replace regexp_split_to_array remap_struct repeat replace replace_type reverse right
    right_grapheme round round_even roundbankers row row_to_json rpad rtrim second set_bit sha1 sha256 sign signbit
    sin sinh split sqrt st_asbinary st_asgeojson st_astext st_aswkb st_aswkt st_crs st_geomfromgeojson st_geomfromwkb
    st_intersects_extent st_setcrs starts_with str_split str_split_regex strftime string_split string_split_regex
    string_to_array strip_accents strlen strpos strptime struct_concat struct_contains struct_extract
    struct_extract_at struct_has struct_indexof struct_insert struct_keys struct_pack struct_position struct_update
    struct_values substr substring substring_grapheme subtract suffix switch tan tanh time_bucket timezone
    timezone_hour timezone_minute to_base to_base64 to_binary to_centuries to_days to_decades to_hex to_hours to_json
    to_microseconds to_millennia to_milliseconds to_minutes to_months to_quarters to_seconds to_timestamp to_weeks
    to_years translate trim trunc try_strptime typeof ucase unbin unhex unicode union_extract union_tag union_value
    unpivot_list upper url_decode url_encode uuid_extract_timestamp uuid_extract_version variant_array_length
    variant_contains variant_exists variant_extract variant_extract_string variant_keys variant_type variant_typeof
    week weekday weekofyear xor year yearweek
""")

MACROS = _names("""
    array_append array_pop_back array_pop_front array_prepend array_push_back array_push_front array_reverse
    array_to_string array_to_string_comma_default assert_true date_add days_in_month fdiv fmod generate_subscripts
    geomean geometric_mean if json list_any_value list_append list_avg list_bit_and list_bit_or list_bit_xor
    list_bool_and list_bool_or list_count list_entropy list_first list_histogram list_kurtosis list_kurtosis_pop
    list_last list_mad list_max list_median list_min list_mode list_prepend list_product list_reverse list_sem
    list_skewness list_stddev_pop list_stddev_samp list_string_agg list_sum list_var_pop list_var_samp
    map_contains_entry map_contains_value md5_number_lower md5_number_upper nullif pg_size_pretty
    regexp_split_to_table split_part wavg weighted_avg
""")

AGGREGATES = _names("""
    arg_max arg_max_null arg_max_nulls_last arg_min arg_min_null arg_min_nulls_last argmax argmin avg bit_and bit_or
    bit_xor bitstring_agg bool_and bool_or corr count count_if count_star countif covar_pop covar_samp decimal_average
    entropy favg fsum histogram histogram_exact kahan_sum kurtosis kurtosis_pop mad max max_by mean median min min_by
    mode product quantile quantile_cont quantile_disc regr_avgx regr_avgy regr_count regr_intercept regr_r2 regr_slope
    regr_sxx regr_sxy regr_syy sem skewness stddev stddev_pop stddev_samp sum sumkahan var_pop var_samp variance
""")

ORDERED_AGGREGATES = _names("""
    array_agg first group_concat last list listagg string_agg
""")
"""Aggregates that need an ORDER BY among their arguments: without one, their result depends on the order of rows."""

WINDOWS = _names("""
    cume_dist dense_rank percent_rank rank rank_dense
""")

ORDERED_WINDOWS = _names("""
    fill first_value lag last_value lead nth_value ntile row_number
""")
"""Window functions whose result depends on the order of rows in the window."""

TABLE_FUNCTIONS = _names("generate_series range unnest")

AGGREGATING = AGGREGATES | ORDERED_AGGREGATES | {"geomean", "geometric_mean", "wavg", "weighted_avg"}
"""Functions that make one row of several: aggregates, and macros that call one."""

ZONE_FREE = _names("""
    != < <= = > >= __between arg_max arg_max_null arg_max_nulls_last arg_min arg_min_null arg_min_nulls_last
    argmax argmin array_agg array_apply array_cat array_concat array_contains array_distinct array_extract
    array_filter array_has array_length array_position array_slice array_sort array_transform array_unique
    array_value avg constant_or_null contains count count_if count_star element_at epoch epoch_ms epoch_ns
    epoch_us error fill first first_value flatten greatest isfinite isinf lag last last_value lead least len
    list list_apply list_cat list_concat list_contains list_distinct list_element list_extract list_filter
    list_has list_has_all list_has_any list_indexof list_pack list_position list_slice list_sort list_transform
    list_unique list_value make_timestamptz map map_contains map_entries map_extract map_extract_value
    map_from_entries map_keys map_values max max_by mean median min min_by mode nth_value quantile quantile_cont
    quantile_disc row struct_extract struct_extract_at struct_insert struct_pack switch to_timestamp typeof
    unpivot_list
""") | {"is distinct from", "is not distinct from"}
"""Functions that may take or yield a time with a zone, and do not look at the session's zone."""

BY_NAME = _names("aggregate array_aggr array_aggregate list_aggr list_aggregate")
"""Functions over a list that call an aggregate, which their second argument names."""

SYNTAX = _names("grouping grouping_id unlist unnest")
"""Functions of the syntax that the catalogue does not have."""

FAMILIES = ("collate_", "icu_")
"""Prefixes of further functions that may be called: one for each collation."""

ALLOWED = OPERATORS | SCALARS | MACROS | AGGREGATES | ORDERED_AGGREGATES | WINDOWS | ORDERED_WINDOWS | SYNTAX

_CLOCK = _names("""
    ago current_date current_localtime current_localtimestamp get_current_time get_current_timestamp now
    pg_conf_load_time pg_postmaster_start_time today transaction_timestamp
""")

_RANDOM = _names("""
    gen_random_uuid random reservoir_quantile setseed uuid uuidv4 uuidv7
""")

_SESSION = _names("""
    alias col_description current_catalog current_connection_id current_database current_query current_query_id
    current_role current_schema current_schemas current_setting current_transaction_id current_user currval
    format_pg_type format_type get_block_size getvariable has_any_column_privilege has_column_privilege
    has_database_privilege has_foreign_data_wrapper_privilege has_function_privilege has_language_privilege
    has_schema_privilege has_sequence_privilege has_server_privilege has_table_privilege has_tablespace_privilege
    in_search_path inet_client_addr inet_client_port inet_server_addr inet_server_port json_deserialize_sql
    json_serialize_plan json_serialize_sql map_to_pg_oid nextval obj_description parse_duckdb_log_message
    pg_collation_is_visible pg_conversion_is_visible pg_function_is_visible pg_get_constraintdef pg_get_expr
    pg_get_viewdef pg_has_role pg_is_other_temp_schema pg_my_temp_schema pg_opclass_is_visible pg_operator_is_visible
    pg_opfamily_is_visible pg_sleep pg_table_is_visible pg_ts_config_is_visible pg_ts_dict_is_visible
    pg_ts_parser_is_visible pg_ts_template_is_visible pg_type_is_visible pg_typeof session_user setval
    shobj_description sleep_ms stats txid_current user vector_type version write_log
""")

_UNORDERED = _names("""
    any_value arbitrary json_group_array json_group_object json_group_structure lttb
""")

_ESTIMATE = _names("""
    approx_count_distinct approx_quantile approx_top_k list_approx_count_distinct
""")

_INTERNAL = _names("""
    __internal_barrier bitstring_byte_comparable can_cast_implicitly combine combine_aggr create_sort_key finalize
    get_type hash index_key invoke is_histogram_other_bin json_copy_strftime_if_date json_copy_strftime_if_timestamp
    make_type sum_no_overflow timetz_byte_comparable to_aggregate_state variant_bytes_to_variant variant_comparator
    variant_group_array variant_group_object variant_normalize variant_to_parquet_variant vertex_extract
""")

REFUSED = {
    **dict.fromkeys(_CLOCK, "returns a different value each time, because it reads the clock"),
    **dict.fromkeys(_RANDOM, "returns a different value each time"),
    **dict.fromkeys(_SESSION, "depends on the session, its settings or the database"),
    **dict.fromkeys(_UNORDERED, "depends on the order of rows, which may differ each time; use min() or max()"),
    **dict.fromkeys(_ESTIMATE, "is an estimate that may differ each time; use an exact function"),
    **dict.fromkeys(_INTERNAL, "is internal to DuckDB and may change with its version; use another function"),
}
"""Functions that may not be called, each with the reason."""

INTERNAL_PREFIX = "__internal_"
"""The prefix of functions that only DuckDB's optimiser calls."""


def is_allowed(name: str) -> bool:
    """Check whether a declaration may call a function, by its name in lower case."""
    return name in ALLOWED or name.startswith(FAMILIES)
