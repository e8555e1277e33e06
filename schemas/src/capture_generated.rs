pub use root::*;

const _: () = ::planus::check_version_compatibility("planus-1.3.0");

/// The root namespace
///
/// Generated from these locations:
/// * File `schemas/capture.fbs`
#[no_implicit_prelude]
#[allow(clippy::needless_lifetimes)]
mod root {
    /// The namespace `capture`
    ///
    /// Generated from these locations:
    /// * File `schemas/capture.fbs`
    pub mod capture {
        /// The table `Column` in the namespace `capture`
        ///
        /// Generated from these locations:
        /// * Table `Column` in the file `schemas/capture.fbs:10`
        #[derive(
            Clone, Debug, PartialEq, PartialOrd, Eq, Ord, Hash, ::serde::Serialize, ::serde::Deserialize,
        )]
        pub struct Column {
            /// The field `id` in the table `Column`
            pub id: u16,
            /// The field `transform` in the table `Column`
            pub transform: u8,
            /// The field `encoding` in the table `Column`
            pub encoding: u8,
            /// The field `offset` in the table `Column`
            pub offset: u32,
            /// The field `stored_len` in the table `Column`
            pub stored_len: u32,
        }

        #[allow(clippy::derivable_impls)]
        impl ::core::default::Default for Column {
            fn default() -> Self {
                Self { id: 0, transform: 0, encoding: 0, offset: 0, stored_len: 0 }
            }
        }

        impl Column {
            /// Creates a [ColumnBuilder] for serializing an instance of this table.
            #[inline]
            pub fn builder() -> ColumnBuilder<()> {
                ColumnBuilder(())
            }

            #[allow(clippy::too_many_arguments)]
            pub fn create(
                builder: &mut ::planus::Builder,
                field_id: impl ::planus::WriteAsDefault<u16, u16>,
                field_transform: impl ::planus::WriteAsDefault<u8, u8>,
                field_encoding: impl ::planus::WriteAsDefault<u8, u8>,
                field_offset: impl ::planus::WriteAsDefault<u32, u32>,
                field_stored_len: impl ::planus::WriteAsDefault<u32, u32>,
            ) -> ::planus::Offset<Self> {
                let prepared_id = field_id.prepare(builder, &0);
                let prepared_transform = field_transform.prepare(builder, &0);
                let prepared_encoding = field_encoding.prepare(builder, &0);
                let prepared_offset = field_offset.prepare(builder, &0);
                let prepared_stored_len = field_stored_len.prepare(builder, &0);

                let mut table_writer: ::planus::table_writer::TableWriter<14> =
                    ::core::default::Default::default();
                if prepared_offset.is_some() {
                    table_writer.write_entry::<u32>(3);
                }
                if prepared_stored_len.is_some() {
                    table_writer.write_entry::<u32>(4);
                }
                if prepared_id.is_some() {
                    table_writer.write_entry::<u16>(0);
                }
                if prepared_transform.is_some() {
                    table_writer.write_entry::<u8>(1);
                }
                if prepared_encoding.is_some() {
                    table_writer.write_entry::<u8>(2);
                }

                unsafe {
                    table_writer.finish(builder, |object_writer| {
                        if let ::core::option::Option::Some(prepared_offset) = prepared_offset {
                            object_writer.write::<_, _, 4>(&prepared_offset);
                        }
                        if let ::core::option::Option::Some(prepared_stored_len) = prepared_stored_len {
                            object_writer.write::<_, _, 4>(&prepared_stored_len);
                        }
                        if let ::core::option::Option::Some(prepared_id) = prepared_id {
                            object_writer.write::<_, _, 2>(&prepared_id);
                        }
                        if let ::core::option::Option::Some(prepared_transform) = prepared_transform {
                            object_writer.write::<_, _, 1>(&prepared_transform);
                        }
                        if let ::core::option::Option::Some(prepared_encoding) = prepared_encoding {
                            object_writer.write::<_, _, 1>(&prepared_encoding);
                        }
                    });
                }
                builder.current_offset()
            }
        }

        impl ::planus::WriteAs<::planus::Offset<Column>> for Column {
            type Prepared = ::planus::Offset<Self>;

            #[inline]
            fn prepare(&self, builder: &mut ::planus::Builder) -> ::planus::Offset<Column> {
                ::planus::WriteAsOffset::prepare(self, builder)
            }
        }

        impl ::planus::WriteAsOptional<::planus::Offset<Column>> for Column {
            type Prepared = ::planus::Offset<Self>;

            #[inline]
            fn prepare(
                &self,
                builder: &mut ::planus::Builder,
            ) -> ::core::option::Option<::planus::Offset<Column>> {
                ::core::option::Option::Some(::planus::WriteAsOffset::prepare(self, builder))
            }
        }

        impl ::planus::WriteAsOffset<Column> for Column {
            #[inline]
            fn prepare(&self, builder: &mut ::planus::Builder) -> ::planus::Offset<Column> {
                Column::create(builder, self.id, self.transform, self.encoding, self.offset, self.stored_len)
            }
        }

        /// Builder for serializing an instance of the [Column] type.
        ///
        /// Can be created using the [Column::builder] method.
        #[derive(Debug)]
        #[must_use]
        pub struct ColumnBuilder<State>(State);

        impl ColumnBuilder<()> {
            /// Setter for the [`id` field](Column#structfield.id).
            #[inline]
            #[allow(clippy::type_complexity)]
            pub fn id<T0>(self, value: T0) -> ColumnBuilder<(T0,)>
            where
                T0: ::planus::WriteAsDefault<u16, u16>,
            {
                ColumnBuilder((value,))
            }

            /// Sets the [`id` field](Column#structfield.id) to the default value.
            #[inline]
            #[allow(clippy::type_complexity)]
            pub fn id_as_default(self) -> ColumnBuilder<(::planus::DefaultValue,)> {
                self.id(::planus::DefaultValue)
            }
        }

        impl<T0> ColumnBuilder<(T0,)> {
            /// Setter for the [`transform` field](Column#structfield.transform).
            #[inline]
            #[allow(clippy::type_complexity)]
            pub fn transform<T1>(self, value: T1) -> ColumnBuilder<(T0, T1)>
            where
                T1: ::planus::WriteAsDefault<u8, u8>,
            {
                let (v0,) = self.0;
                ColumnBuilder((v0, value))
            }

            /// Sets the [`transform` field](Column#structfield.transform) to the default value.
            #[inline]
            #[allow(clippy::type_complexity)]
            pub fn transform_as_default(self) -> ColumnBuilder<(T0, ::planus::DefaultValue)> {
                self.transform(::planus::DefaultValue)
            }
        }

        impl<T0, T1> ColumnBuilder<(T0, T1)> {
            /// Setter for the [`encoding` field](Column#structfield.encoding).
            #[inline]
            #[allow(clippy::type_complexity)]
            pub fn encoding<T2>(self, value: T2) -> ColumnBuilder<(T0, T1, T2)>
            where
                T2: ::planus::WriteAsDefault<u8, u8>,
            {
                let (v0, v1) = self.0;
                ColumnBuilder((v0, v1, value))
            }

            /// Sets the [`encoding` field](Column#structfield.encoding) to the default value.
            #[inline]
            #[allow(clippy::type_complexity)]
            pub fn encoding_as_default(self) -> ColumnBuilder<(T0, T1, ::planus::DefaultValue)> {
                self.encoding(::planus::DefaultValue)
            }
        }

        impl<T0, T1, T2> ColumnBuilder<(T0, T1, T2)> {
            /// Setter for the [`offset` field](Column#structfield.offset).
            #[inline]
            #[allow(clippy::type_complexity)]
            pub fn offset<T3>(self, value: T3) -> ColumnBuilder<(T0, T1, T2, T3)>
            where
                T3: ::planus::WriteAsDefault<u32, u32>,
            {
                let (v0, v1, v2) = self.0;
                ColumnBuilder((v0, v1, v2, value))
            }

            /// Sets the [`offset` field](Column#structfield.offset) to the default value.
            #[inline]
            #[allow(clippy::type_complexity)]
            pub fn offset_as_default(self) -> ColumnBuilder<(T0, T1, T2, ::planus::DefaultValue)> {
                self.offset(::planus::DefaultValue)
            }
        }

        impl<T0, T1, T2, T3> ColumnBuilder<(T0, T1, T2, T3)> {
            /// Setter for the [`stored_len` field](Column#structfield.stored_len).
            #[inline]
            #[allow(clippy::type_complexity)]
            pub fn stored_len<T4>(self, value: T4) -> ColumnBuilder<(T0, T1, T2, T3, T4)>
            where
                T4: ::planus::WriteAsDefault<u32, u32>,
            {
                let (v0, v1, v2, v3) = self.0;
                ColumnBuilder((v0, v1, v2, v3, value))
            }

            /// Sets the [`stored_len` field](Column#structfield.stored_len) to the default value.
            #[inline]
            #[allow(clippy::type_complexity)]
            pub fn stored_len_as_default(self) -> ColumnBuilder<(T0, T1, T2, T3, ::planus::DefaultValue)> {
                self.stored_len(::planus::DefaultValue)
            }
        }

        impl<T0, T1, T2, T3, T4> ColumnBuilder<(T0, T1, T2, T3, T4)> {
            /// Finish writing the builder to get an [Offset](::planus::Offset) to a serialized [Column].
            #[inline]
            pub fn finish(self, builder: &mut ::planus::Builder) -> ::planus::Offset<Column>
            where
                Self: ::planus::WriteAsOffset<Column>,
            {
                ::planus::WriteAsOffset::prepare(&self, builder)
            }
        }

        impl<
                T0: ::planus::WriteAsDefault<u16, u16>,
                T1: ::planus::WriteAsDefault<u8, u8>,
                T2: ::planus::WriteAsDefault<u8, u8>,
                T3: ::planus::WriteAsDefault<u32, u32>,
                T4: ::planus::WriteAsDefault<u32, u32>,
            > ::planus::WriteAs<::planus::Offset<Column>> for ColumnBuilder<(T0, T1, T2, T3, T4)>
        {
            type Prepared = ::planus::Offset<Column>;

            #[inline]
            fn prepare(&self, builder: &mut ::planus::Builder) -> ::planus::Offset<Column> {
                ::planus::WriteAsOffset::prepare(self, builder)
            }
        }

        impl<
                T0: ::planus::WriteAsDefault<u16, u16>,
                T1: ::planus::WriteAsDefault<u8, u8>,
                T2: ::planus::WriteAsDefault<u8, u8>,
                T3: ::planus::WriteAsDefault<u32, u32>,
                T4: ::planus::WriteAsDefault<u32, u32>,
            > ::planus::WriteAsOptional<::planus::Offset<Column>> for ColumnBuilder<(T0, T1, T2, T3, T4)>
        {
            type Prepared = ::planus::Offset<Column>;

            #[inline]
            fn prepare(
                &self,
                builder: &mut ::planus::Builder,
            ) -> ::core::option::Option<::planus::Offset<Column>> {
                ::core::option::Option::Some(::planus::WriteAsOffset::prepare(self, builder))
            }
        }

        impl<
                T0: ::planus::WriteAsDefault<u16, u16>,
                T1: ::planus::WriteAsDefault<u8, u8>,
                T2: ::planus::WriteAsDefault<u8, u8>,
                T3: ::planus::WriteAsDefault<u32, u32>,
                T4: ::planus::WriteAsDefault<u32, u32>,
            > ::planus::WriteAsOffset<Column> for ColumnBuilder<(T0, T1, T2, T3, T4)>
        {
            #[inline]
            fn prepare(&self, builder: &mut ::planus::Builder) -> ::planus::Offset<Column> {
                let (v0, v1, v2, v3, v4) = &self.0;
                Column::create(builder, v0, v1, v2, v3, v4)
            }
        }

        /// Reference to a deserialized [Column].
        #[derive(Copy, Clone)]
        pub struct ColumnRef<'a>(#[allow(dead_code)] ::planus::table_reader::Table<'a>);

        impl<'a> ColumnRef<'a> {
            /// Getter for the [`id` field](Column#structfield.id).
            #[inline]
            pub fn id(&self) -> ::planus::Result<u16> {
                ::core::result::Result::Ok(self.0.access(0, "Column", "id")?.unwrap_or(0))
            }

            /// Getter for the [`transform` field](Column#structfield.transform).
            #[inline]
            pub fn transform(&self) -> ::planus::Result<u8> {
                ::core::result::Result::Ok(self.0.access(1, "Column", "transform")?.unwrap_or(0))
            }

            /// Getter for the [`encoding` field](Column#structfield.encoding).
            #[inline]
            pub fn encoding(&self) -> ::planus::Result<u8> {
                ::core::result::Result::Ok(self.0.access(2, "Column", "encoding")?.unwrap_or(0))
            }

            /// Getter for the [`offset` field](Column#structfield.offset).
            #[inline]
            pub fn offset(&self) -> ::planus::Result<u32> {
                ::core::result::Result::Ok(self.0.access(3, "Column", "offset")?.unwrap_or(0))
            }

            /// Getter for the [`stored_len` field](Column#structfield.stored_len).
            #[inline]
            pub fn stored_len(&self) -> ::planus::Result<u32> {
                ::core::result::Result::Ok(self.0.access(4, "Column", "stored_len")?.unwrap_or(0))
            }
        }

        impl<'a> ::core::fmt::Debug for ColumnRef<'a> {
            fn fmt(&self, f: &mut ::core::fmt::Formatter<'_>) -> ::core::fmt::Result {
                let mut f = f.debug_struct("ColumnRef");
                f.field("id", &self.id());
                f.field("transform", &self.transform());
                f.field("encoding", &self.encoding());
                f.field("offset", &self.offset());
                f.field("stored_len", &self.stored_len());
                f.finish()
            }
        }

        impl<'a> ::core::convert::TryFrom<ColumnRef<'a>> for Column {
            type Error = ::planus::Error;

            #[allow(unreachable_code)]
            fn try_from(value: ColumnRef<'a>) -> ::planus::Result<Self> {
                ::core::result::Result::Ok(Self {
                    id: ::core::convert::TryInto::try_into(value.id()?)?,
                    transform: ::core::convert::TryInto::try_into(value.transform()?)?,
                    encoding: ::core::convert::TryInto::try_into(value.encoding()?)?,
                    offset: ::core::convert::TryInto::try_into(value.offset()?)?,
                    stored_len: ::core::convert::TryInto::try_into(value.stored_len()?)?,
                })
            }
        }

        impl<'a> ::planus::TableRead<'a> for ColumnRef<'a> {
            #[inline]
            fn from_buffer(
                buffer: ::planus::SliceWithStartOffset<'a>,
                offset: usize,
            ) -> ::core::result::Result<Self, ::planus::errors::ErrorKind> {
                ::core::result::Result::Ok(Self(::planus::table_reader::Table::from_buffer(buffer, offset)?))
            }
        }

        impl<'a> ::planus::VectorReadInner<'a> for ColumnRef<'a> {
            type Error = ::planus::Error;
            const STRIDE: usize = 4;

            unsafe fn from_buffer(
                buffer: ::planus::SliceWithStartOffset<'a>,
                offset: usize,
            ) -> ::planus::Result<Self> {
                ::planus::TableRead::from_buffer(buffer, offset).map_err(|error_kind| {
                    error_kind.with_error_location("[ColumnRef]", "get", buffer.offset_from_start)
                })
            }
        }

        /// # Safety
        /// The planus compiler generates implementations that initialize
        /// the bytes in `write_values`.
        unsafe impl ::planus::VectorWrite<::planus::Offset<Column>> for Column {
            type Value = ::planus::Offset<Column>;
            const STRIDE: usize = 4;
            #[inline]
            fn prepare(&self, builder: &mut ::planus::Builder) -> Self::Value {
                ::planus::WriteAs::prepare(self, builder)
            }

            #[inline]
            unsafe fn write_values(
                values: &[::planus::Offset<Column>],
                bytes: *mut ::core::mem::MaybeUninit<u8>,
                buffer_position: u32,
            ) {
                let bytes = bytes as *mut [::core::mem::MaybeUninit<u8>; 4];
                for (i, v) in ::core::iter::Iterator::enumerate(values.iter()) {
                    ::planus::WriteAsPrimitive::write(
                        v,
                        ::planus::Cursor::new(unsafe { &mut *bytes.add(i) }),
                        buffer_position - (Self::STRIDE * i) as u32,
                    );
                }
            }
        }

        impl<'a> ::planus::ReadAsRoot<'a> for ColumnRef<'a> {
            fn read_as_root(slice: &'a [u8]) -> ::planus::Result<Self> {
                ::planus::TableRead::from_buffer(
                    ::planus::SliceWithStartOffset { buffer: slice, offset_from_start: 0 },
                    0,
                )
                .map_err(|error_kind| error_kind.with_error_location("[ColumnRef]", "read_as_root", 0))
            }
        }

        /// The table `Batch` in the namespace `capture`
        ///
        /// Generated from these locations:
        /// * Table `Batch` in the file `schemas/capture.fbs:19`
        #[derive(
            Clone, Debug, PartialEq, PartialOrd, Eq, Ord, Hash, ::serde::Serialize, ::serde::Deserialize,
        )]
        pub struct Batch {
            /// The field `kind` in the table `Batch`
            pub kind: u16,
            /// The field `key` in the table `Batch`
            pub key: u32,
            /// The field `rows` in the table `Batch`
            pub rows: u32,
            /// The field `min_ns` in the table `Batch`
            pub min_ns: i64,
            /// The field `max_ns` in the table `Batch`
            pub max_ns: i64,
            /// The field `offset` in the table `Batch`
            pub offset: u64,
            /// The field `stored_len` in the table `Batch`
            pub stored_len: u32,
            /// The field `crc32c` in the table `Batch`
            pub crc32c: u32,
            /// The field `columns` in the table `Batch`
            pub columns: ::core::option::Option<::planus::alloc::vec::Vec<self::Column>>,
        }

        #[allow(clippy::derivable_impls)]
        impl ::core::default::Default for Batch {
            fn default() -> Self {
                Self {
                    kind: 0,
                    key: 0,
                    rows: 0,
                    min_ns: 0,
                    max_ns: 0,
                    offset: 0,
                    stored_len: 0,
                    crc32c: 0,
                    columns: ::core::default::Default::default(),
                }
            }
        }

        impl Batch {
            /// Creates a [BatchBuilder] for serializing an instance of this table.
            #[inline]
            pub fn builder() -> BatchBuilder<()> {
                BatchBuilder(())
            }

            #[allow(clippy::too_many_arguments)]
            pub fn create(
                builder: &mut ::planus::Builder,
                field_kind: impl ::planus::WriteAsDefault<u16, u16>,
                field_key: impl ::planus::WriteAsDefault<u32, u32>,
                field_rows: impl ::planus::WriteAsDefault<u32, u32>,
                field_min_ns: impl ::planus::WriteAsDefault<i64, i64>,
                field_max_ns: impl ::planus::WriteAsDefault<i64, i64>,
                field_offset: impl ::planus::WriteAsDefault<u64, u64>,
                field_stored_len: impl ::planus::WriteAsDefault<u32, u32>,
                field_crc32c: impl ::planus::WriteAsDefault<u32, u32>,
                field_columns: impl ::planus::WriteAsOptional<::planus::Offset<[::planus::Offset<self::Column>]>>,
            ) -> ::planus::Offset<Self> {
                let prepared_kind = field_kind.prepare(builder, &0);
                let prepared_key = field_key.prepare(builder, &0);
                let prepared_rows = field_rows.prepare(builder, &0);
                let prepared_min_ns = field_min_ns.prepare(builder, &0);
                let prepared_max_ns = field_max_ns.prepare(builder, &0);
                let prepared_offset = field_offset.prepare(builder, &0);
                let prepared_stored_len = field_stored_len.prepare(builder, &0);
                let prepared_crc32c = field_crc32c.prepare(builder, &0);
                let prepared_columns = field_columns.prepare(builder);

                let mut table_writer: ::planus::table_writer::TableWriter<22> =
                    ::core::default::Default::default();
                if prepared_min_ns.is_some() {
                    table_writer.write_entry::<i64>(3);
                }
                if prepared_max_ns.is_some() {
                    table_writer.write_entry::<i64>(4);
                }
                if prepared_offset.is_some() {
                    table_writer.write_entry::<u64>(5);
                }
                if prepared_key.is_some() {
                    table_writer.write_entry::<u32>(1);
                }
                if prepared_rows.is_some() {
                    table_writer.write_entry::<u32>(2);
                }
                if prepared_stored_len.is_some() {
                    table_writer.write_entry::<u32>(6);
                }
                if prepared_crc32c.is_some() {
                    table_writer.write_entry::<u32>(7);
                }
                if prepared_columns.is_some() {
                    table_writer.write_entry::<::planus::Offset<[::planus::Offset<self::Column>]>>(8);
                }
                if prepared_kind.is_some() {
                    table_writer.write_entry::<u16>(0);
                }

                unsafe {
                    table_writer.finish(builder, |object_writer| {
                        if let ::core::option::Option::Some(prepared_min_ns) = prepared_min_ns {
                            object_writer.write::<_, _, 8>(&prepared_min_ns);
                        }
                        if let ::core::option::Option::Some(prepared_max_ns) = prepared_max_ns {
                            object_writer.write::<_, _, 8>(&prepared_max_ns);
                        }
                        if let ::core::option::Option::Some(prepared_offset) = prepared_offset {
                            object_writer.write::<_, _, 8>(&prepared_offset);
                        }
                        if let ::core::option::Option::Some(prepared_key) = prepared_key {
                            object_writer.write::<_, _, 4>(&prepared_key);
                        }
                        if let ::core::option::Option::Some(prepared_rows) = prepared_rows {
                            object_writer.write::<_, _, 4>(&prepared_rows);
                        }
                        if let ::core::option::Option::Some(prepared_stored_len) = prepared_stored_len {
                            object_writer.write::<_, _, 4>(&prepared_stored_len);
                        }
                        if let ::core::option::Option::Some(prepared_crc32c) = prepared_crc32c {
                            object_writer.write::<_, _, 4>(&prepared_crc32c);
                        }
                        if let ::core::option::Option::Some(prepared_columns) = prepared_columns {
                            object_writer.write::<_, _, 4>(&prepared_columns);
                        }
                        if let ::core::option::Option::Some(prepared_kind) = prepared_kind {
                            object_writer.write::<_, _, 2>(&prepared_kind);
                        }
                    });
                }
                builder.current_offset()
            }
        }

        impl ::planus::WriteAs<::planus::Offset<Batch>> for Batch {
            type Prepared = ::planus::Offset<Self>;

            #[inline]
            fn prepare(&self, builder: &mut ::planus::Builder) -> ::planus::Offset<Batch> {
                ::planus::WriteAsOffset::prepare(self, builder)
            }
        }

        impl ::planus::WriteAsOptional<::planus::Offset<Batch>> for Batch {
            type Prepared = ::planus::Offset<Self>;

            #[inline]
            fn prepare(
                &self,
                builder: &mut ::planus::Builder,
            ) -> ::core::option::Option<::planus::Offset<Batch>> {
                ::core::option::Option::Some(::planus::WriteAsOffset::prepare(self, builder))
            }
        }

        impl ::planus::WriteAsOffset<Batch> for Batch {
            #[inline]
            fn prepare(&self, builder: &mut ::planus::Builder) -> ::planus::Offset<Batch> {
                Batch::create(
                    builder,
                    self.kind,
                    self.key,
                    self.rows,
                    self.min_ns,
                    self.max_ns,
                    self.offset,
                    self.stored_len,
                    self.crc32c,
                    &self.columns,
                )
            }
        }

        /// Builder for serializing an instance of the [Batch] type.
        ///
        /// Can be created using the [Batch::builder] method.
        #[derive(Debug)]
        #[must_use]
        pub struct BatchBuilder<State>(State);

        impl BatchBuilder<()> {
            /// Setter for the [`kind` field](Batch#structfield.kind).
            #[inline]
            #[allow(clippy::type_complexity)]
            pub fn kind<T0>(self, value: T0) -> BatchBuilder<(T0,)>
            where
                T0: ::planus::WriteAsDefault<u16, u16>,
            {
                BatchBuilder((value,))
            }

            /// Sets the [`kind` field](Batch#structfield.kind) to the default value.
            #[inline]
            #[allow(clippy::type_complexity)]
            pub fn kind_as_default(self) -> BatchBuilder<(::planus::DefaultValue,)> {
                self.kind(::planus::DefaultValue)
            }
        }

        impl<T0> BatchBuilder<(T0,)> {
            /// Setter for the [`key` field](Batch#structfield.key).
            #[inline]
            #[allow(clippy::type_complexity)]
            pub fn key<T1>(self, value: T1) -> BatchBuilder<(T0, T1)>
            where
                T1: ::planus::WriteAsDefault<u32, u32>,
            {
                let (v0,) = self.0;
                BatchBuilder((v0, value))
            }

            /// Sets the [`key` field](Batch#structfield.key) to the default value.
            #[inline]
            #[allow(clippy::type_complexity)]
            pub fn key_as_default(self) -> BatchBuilder<(T0, ::planus::DefaultValue)> {
                self.key(::planus::DefaultValue)
            }
        }

        impl<T0, T1> BatchBuilder<(T0, T1)> {
            /// Setter for the [`rows` field](Batch#structfield.rows).
            #[inline]
            #[allow(clippy::type_complexity)]
            pub fn rows<T2>(self, value: T2) -> BatchBuilder<(T0, T1, T2)>
            where
                T2: ::planus::WriteAsDefault<u32, u32>,
            {
                let (v0, v1) = self.0;
                BatchBuilder((v0, v1, value))
            }

            /// Sets the [`rows` field](Batch#structfield.rows) to the default value.
            #[inline]
            #[allow(clippy::type_complexity)]
            pub fn rows_as_default(self) -> BatchBuilder<(T0, T1, ::planus::DefaultValue)> {
                self.rows(::planus::DefaultValue)
            }
        }

        impl<T0, T1, T2> BatchBuilder<(T0, T1, T2)> {
            /// Setter for the [`min_ns` field](Batch#structfield.min_ns).
            #[inline]
            #[allow(clippy::type_complexity)]
            pub fn min_ns<T3>(self, value: T3) -> BatchBuilder<(T0, T1, T2, T3)>
            where
                T3: ::planus::WriteAsDefault<i64, i64>,
            {
                let (v0, v1, v2) = self.0;
                BatchBuilder((v0, v1, v2, value))
            }

            /// Sets the [`min_ns` field](Batch#structfield.min_ns) to the default value.
            #[inline]
            #[allow(clippy::type_complexity)]
            pub fn min_ns_as_default(self) -> BatchBuilder<(T0, T1, T2, ::planus::DefaultValue)> {
                self.min_ns(::planus::DefaultValue)
            }
        }

        impl<T0, T1, T2, T3> BatchBuilder<(T0, T1, T2, T3)> {
            /// Setter for the [`max_ns` field](Batch#structfield.max_ns).
            #[inline]
            #[allow(clippy::type_complexity)]
            pub fn max_ns<T4>(self, value: T4) -> BatchBuilder<(T0, T1, T2, T3, T4)>
            where
                T4: ::planus::WriteAsDefault<i64, i64>,
            {
                let (v0, v1, v2, v3) = self.0;
                BatchBuilder((v0, v1, v2, v3, value))
            }

            /// Sets the [`max_ns` field](Batch#structfield.max_ns) to the default value.
            #[inline]
            #[allow(clippy::type_complexity)]
            pub fn max_ns_as_default(self) -> BatchBuilder<(T0, T1, T2, T3, ::planus::DefaultValue)> {
                self.max_ns(::planus::DefaultValue)
            }
        }

        impl<T0, T1, T2, T3, T4> BatchBuilder<(T0, T1, T2, T3, T4)> {
            /// Setter for the [`offset` field](Batch#structfield.offset).
            #[inline]
            #[allow(clippy::type_complexity)]
            pub fn offset<T5>(self, value: T5) -> BatchBuilder<(T0, T1, T2, T3, T4, T5)>
            where
                T5: ::planus::WriteAsDefault<u64, u64>,
            {
                let (v0, v1, v2, v3, v4) = self.0;
                BatchBuilder((v0, v1, v2, v3, v4, value))
            }

            /// Sets the [`offset` field](Batch#structfield.offset) to the default value.
            #[inline]
            #[allow(clippy::type_complexity)]
            pub fn offset_as_default(self) -> BatchBuilder<(T0, T1, T2, T3, T4, ::planus::DefaultValue)> {
                self.offset(::planus::DefaultValue)
            }
        }

        impl<T0, T1, T2, T3, T4, T5> BatchBuilder<(T0, T1, T2, T3, T4, T5)> {
            /// Setter for the [`stored_len` field](Batch#structfield.stored_len).
            #[inline]
            #[allow(clippy::type_complexity)]
            pub fn stored_len<T6>(self, value: T6) -> BatchBuilder<(T0, T1, T2, T3, T4, T5, T6)>
            where
                T6: ::planus::WriteAsDefault<u32, u32>,
            {
                let (v0, v1, v2, v3, v4, v5) = self.0;
                BatchBuilder((v0, v1, v2, v3, v4, v5, value))
            }

            /// Sets the [`stored_len` field](Batch#structfield.stored_len) to the default value.
            #[inline]
            #[allow(clippy::type_complexity)]
            pub fn stored_len_as_default(
                self,
            ) -> BatchBuilder<(T0, T1, T2, T3, T4, T5, ::planus::DefaultValue)> {
                self.stored_len(::planus::DefaultValue)
            }
        }

        impl<T0, T1, T2, T3, T4, T5, T6> BatchBuilder<(T0, T1, T2, T3, T4, T5, T6)> {
            /// Setter for the [`crc32c` field](Batch#structfield.crc32c).
            #[inline]
            #[allow(clippy::type_complexity)]
            pub fn crc32c<T7>(self, value: T7) -> BatchBuilder<(T0, T1, T2, T3, T4, T5, T6, T7)>
            where
                T7: ::planus::WriteAsDefault<u32, u32>,
            {
                let (v0, v1, v2, v3, v4, v5, v6) = self.0;
                BatchBuilder((v0, v1, v2, v3, v4, v5, v6, value))
            }

            /// Sets the [`crc32c` field](Batch#structfield.crc32c) to the default value.
            #[inline]
            #[allow(clippy::type_complexity)]
            pub fn crc32c_as_default(
                self,
            ) -> BatchBuilder<(T0, T1, T2, T3, T4, T5, T6, ::planus::DefaultValue)> {
                self.crc32c(::planus::DefaultValue)
            }
        }

        impl<T0, T1, T2, T3, T4, T5, T6, T7> BatchBuilder<(T0, T1, T2, T3, T4, T5, T6, T7)> {
            /// Setter for the [`columns` field](Batch#structfield.columns).
            #[inline]
            #[allow(clippy::type_complexity)]
            pub fn columns<T8>(self, value: T8) -> BatchBuilder<(T0, T1, T2, T3, T4, T5, T6, T7, T8)>
            where
                T8: ::planus::WriteAsOptional<::planus::Offset<[::planus::Offset<self::Column>]>>,
            {
                let (v0, v1, v2, v3, v4, v5, v6, v7) = self.0;
                BatchBuilder((v0, v1, v2, v3, v4, v5, v6, v7, value))
            }

            /// Sets the [`columns` field](Batch#structfield.columns) to null.
            #[inline]
            #[allow(clippy::type_complexity)]
            pub fn columns_as_null(self) -> BatchBuilder<(T0, T1, T2, T3, T4, T5, T6, T7, ())> {
                self.columns(())
            }
        }

        impl<T0, T1, T2, T3, T4, T5, T6, T7, T8> BatchBuilder<(T0, T1, T2, T3, T4, T5, T6, T7, T8)> {
            /// Finish writing the builder to get an [Offset](::planus::Offset) to a serialized [Batch].
            #[inline]
            pub fn finish(self, builder: &mut ::planus::Builder) -> ::planus::Offset<Batch>
            where
                Self: ::planus::WriteAsOffset<Batch>,
            {
                ::planus::WriteAsOffset::prepare(&self, builder)
            }
        }

        impl<
                T0: ::planus::WriteAsDefault<u16, u16>,
                T1: ::planus::WriteAsDefault<u32, u32>,
                T2: ::planus::WriteAsDefault<u32, u32>,
                T3: ::planus::WriteAsDefault<i64, i64>,
                T4: ::planus::WriteAsDefault<i64, i64>,
                T5: ::planus::WriteAsDefault<u64, u64>,
                T6: ::planus::WriteAsDefault<u32, u32>,
                T7: ::planus::WriteAsDefault<u32, u32>,
                T8: ::planus::WriteAsOptional<::planus::Offset<[::planus::Offset<self::Column>]>>,
            > ::planus::WriteAs<::planus::Offset<Batch>>
            for BatchBuilder<(T0, T1, T2, T3, T4, T5, T6, T7, T8)>
        {
            type Prepared = ::planus::Offset<Batch>;

            #[inline]
            fn prepare(&self, builder: &mut ::planus::Builder) -> ::planus::Offset<Batch> {
                ::planus::WriteAsOffset::prepare(self, builder)
            }
        }

        impl<
                T0: ::planus::WriteAsDefault<u16, u16>,
                T1: ::planus::WriteAsDefault<u32, u32>,
                T2: ::planus::WriteAsDefault<u32, u32>,
                T3: ::planus::WriteAsDefault<i64, i64>,
                T4: ::planus::WriteAsDefault<i64, i64>,
                T5: ::planus::WriteAsDefault<u64, u64>,
                T6: ::planus::WriteAsDefault<u32, u32>,
                T7: ::planus::WriteAsDefault<u32, u32>,
                T8: ::planus::WriteAsOptional<::planus::Offset<[::planus::Offset<self::Column>]>>,
            > ::planus::WriteAsOptional<::planus::Offset<Batch>>
            for BatchBuilder<(T0, T1, T2, T3, T4, T5, T6, T7, T8)>
        {
            type Prepared = ::planus::Offset<Batch>;

            #[inline]
            fn prepare(
                &self,
                builder: &mut ::planus::Builder,
            ) -> ::core::option::Option<::planus::Offset<Batch>> {
                ::core::option::Option::Some(::planus::WriteAsOffset::prepare(self, builder))
            }
        }

        impl<
                T0: ::planus::WriteAsDefault<u16, u16>,
                T1: ::planus::WriteAsDefault<u32, u32>,
                T2: ::planus::WriteAsDefault<u32, u32>,
                T3: ::planus::WriteAsDefault<i64, i64>,
                T4: ::planus::WriteAsDefault<i64, i64>,
                T5: ::planus::WriteAsDefault<u64, u64>,
                T6: ::planus::WriteAsDefault<u32, u32>,
                T7: ::planus::WriteAsDefault<u32, u32>,
                T8: ::planus::WriteAsOptional<::planus::Offset<[::planus::Offset<self::Column>]>>,
            > ::planus::WriteAsOffset<Batch> for BatchBuilder<(T0, T1, T2, T3, T4, T5, T6, T7, T8)>
        {
            #[inline]
            fn prepare(&self, builder: &mut ::planus::Builder) -> ::planus::Offset<Batch> {
                let (v0, v1, v2, v3, v4, v5, v6, v7, v8) = &self.0;
                Batch::create(builder, v0, v1, v2, v3, v4, v5, v6, v7, v8)
            }
        }

        /// Reference to a deserialized [Batch].
        #[derive(Copy, Clone)]
        pub struct BatchRef<'a>(#[allow(dead_code)] ::planus::table_reader::Table<'a>);

        impl<'a> BatchRef<'a> {
            /// Getter for the [`kind` field](Batch#structfield.kind).
            #[inline]
            pub fn kind(&self) -> ::planus::Result<u16> {
                ::core::result::Result::Ok(self.0.access(0, "Batch", "kind")?.unwrap_or(0))
            }

            /// Getter for the [`key` field](Batch#structfield.key).
            #[inline]
            pub fn key(&self) -> ::planus::Result<u32> {
                ::core::result::Result::Ok(self.0.access(1, "Batch", "key")?.unwrap_or(0))
            }

            /// Getter for the [`rows` field](Batch#structfield.rows).
            #[inline]
            pub fn rows(&self) -> ::planus::Result<u32> {
                ::core::result::Result::Ok(self.0.access(2, "Batch", "rows")?.unwrap_or(0))
            }

            /// Getter for the [`min_ns` field](Batch#structfield.min_ns).
            #[inline]
            pub fn min_ns(&self) -> ::planus::Result<i64> {
                ::core::result::Result::Ok(self.0.access(3, "Batch", "min_ns")?.unwrap_or(0))
            }

            /// Getter for the [`max_ns` field](Batch#structfield.max_ns).
            #[inline]
            pub fn max_ns(&self) -> ::planus::Result<i64> {
                ::core::result::Result::Ok(self.0.access(4, "Batch", "max_ns")?.unwrap_or(0))
            }

            /// Getter for the [`offset` field](Batch#structfield.offset).
            #[inline]
            pub fn offset(&self) -> ::planus::Result<u64> {
                ::core::result::Result::Ok(self.0.access(5, "Batch", "offset")?.unwrap_or(0))
            }

            /// Getter for the [`stored_len` field](Batch#structfield.stored_len).
            #[inline]
            pub fn stored_len(&self) -> ::planus::Result<u32> {
                ::core::result::Result::Ok(self.0.access(6, "Batch", "stored_len")?.unwrap_or(0))
            }

            /// Getter for the [`crc32c` field](Batch#structfield.crc32c).
            #[inline]
            pub fn crc32c(&self) -> ::planus::Result<u32> {
                ::core::result::Result::Ok(self.0.access(7, "Batch", "crc32c")?.unwrap_or(0))
            }

            /// Getter for the [`columns` field](Batch#structfield.columns).
            #[inline]
            pub fn columns(
                &self,
            ) -> ::planus::Result<
                ::core::option::Option<::planus::Vector<'a, ::planus::Result<self::ColumnRef<'a>>>>,
            > {
                self.0.access(8, "Batch", "columns")
            }
        }

        impl<'a> ::core::fmt::Debug for BatchRef<'a> {
            fn fmt(&self, f: &mut ::core::fmt::Formatter<'_>) -> ::core::fmt::Result {
                let mut f = f.debug_struct("BatchRef");
                f.field("kind", &self.kind());
                f.field("key", &self.key());
                f.field("rows", &self.rows());
                f.field("min_ns", &self.min_ns());
                f.field("max_ns", &self.max_ns());
                f.field("offset", &self.offset());
                f.field("stored_len", &self.stored_len());
                f.field("crc32c", &self.crc32c());
                if let ::core::option::Option::Some(field_columns) = self.columns().transpose() {
                    f.field("columns", &field_columns);
                }
                f.finish()
            }
        }

        impl<'a> ::core::convert::TryFrom<BatchRef<'a>> for Batch {
            type Error = ::planus::Error;

            #[allow(unreachable_code)]
            fn try_from(value: BatchRef<'a>) -> ::planus::Result<Self> {
                ::core::result::Result::Ok(Self {
                    kind: ::core::convert::TryInto::try_into(value.kind()?)?,
                    key: ::core::convert::TryInto::try_into(value.key()?)?,
                    rows: ::core::convert::TryInto::try_into(value.rows()?)?,
                    min_ns: ::core::convert::TryInto::try_into(value.min_ns()?)?,
                    max_ns: ::core::convert::TryInto::try_into(value.max_ns()?)?,
                    offset: ::core::convert::TryInto::try_into(value.offset()?)?,
                    stored_len: ::core::convert::TryInto::try_into(value.stored_len()?)?,
                    crc32c: ::core::convert::TryInto::try_into(value.crc32c()?)?,
                    columns: if let ::core::option::Option::Some(columns) = value.columns()? {
                        ::core::option::Option::Some(columns.to_vec_result()?)
                    } else {
                        ::core::option::Option::None
                    },
                })
            }
        }

        impl<'a> ::planus::TableRead<'a> for BatchRef<'a> {
            #[inline]
            fn from_buffer(
                buffer: ::planus::SliceWithStartOffset<'a>,
                offset: usize,
            ) -> ::core::result::Result<Self, ::planus::errors::ErrorKind> {
                ::core::result::Result::Ok(Self(::planus::table_reader::Table::from_buffer(buffer, offset)?))
            }
        }

        impl<'a> ::planus::VectorReadInner<'a> for BatchRef<'a> {
            type Error = ::planus::Error;
            const STRIDE: usize = 4;

            unsafe fn from_buffer(
                buffer: ::planus::SliceWithStartOffset<'a>,
                offset: usize,
            ) -> ::planus::Result<Self> {
                ::planus::TableRead::from_buffer(buffer, offset).map_err(|error_kind| {
                    error_kind.with_error_location("[BatchRef]", "get", buffer.offset_from_start)
                })
            }
        }

        /// # Safety
        /// The planus compiler generates implementations that initialize
        /// the bytes in `write_values`.
        unsafe impl ::planus::VectorWrite<::planus::Offset<Batch>> for Batch {
            type Value = ::planus::Offset<Batch>;
            const STRIDE: usize = 4;
            #[inline]
            fn prepare(&self, builder: &mut ::planus::Builder) -> Self::Value {
                ::planus::WriteAs::prepare(self, builder)
            }

            #[inline]
            unsafe fn write_values(
                values: &[::planus::Offset<Batch>],
                bytes: *mut ::core::mem::MaybeUninit<u8>,
                buffer_position: u32,
            ) {
                let bytes = bytes as *mut [::core::mem::MaybeUninit<u8>; 4];
                for (i, v) in ::core::iter::Iterator::enumerate(values.iter()) {
                    ::planus::WriteAsPrimitive::write(
                        v,
                        ::planus::Cursor::new(unsafe { &mut *bytes.add(i) }),
                        buffer_position - (Self::STRIDE * i) as u32,
                    );
                }
            }
        }

        impl<'a> ::planus::ReadAsRoot<'a> for BatchRef<'a> {
            fn read_as_root(slice: &'a [u8]) -> ::planus::Result<Self> {
                ::planus::TableRead::from_buffer(
                    ::planus::SliceWithStartOffset { buffer: slice, offset_from_start: 0 },
                    0,
                )
                .map_err(|error_kind| error_kind.with_error_location("[BatchRef]", "read_as_root", 0))
            }
        }

        /// The table `Clock` in the namespace `capture`
        ///
        /// Generated from these locations:
        /// * Table `Clock` in the file `schemas/capture.fbs:32`
        #[derive(
            Clone, Debug, PartialEq, PartialOrd, Eq, Ord, Hash, ::serde::Serialize, ::serde::Deserialize,
        )]
        pub struct Clock {
            /// The field `source` in the table `Clock`
            pub source: u32,
            /// The field `offset_ns` in the table `Clock`
            pub offset_ns: i64,
            /// The field `error_ns` in the table `Clock`
            pub error_ns: u64,
            /// The field `note` in the table `Clock`
            pub note: ::core::option::Option<::planus::alloc::string::String>,
        }

        #[allow(clippy::derivable_impls)]
        impl ::core::default::Default for Clock {
            fn default() -> Self {
                Self { source: 0, offset_ns: 0, error_ns: 0, note: ::core::default::Default::default() }
            }
        }

        impl Clock {
            /// Creates a [ClockBuilder] for serializing an instance of this table.
            #[inline]
            pub fn builder() -> ClockBuilder<()> {
                ClockBuilder(())
            }

            #[allow(clippy::too_many_arguments)]
            pub fn create(
                builder: &mut ::planus::Builder,
                field_source: impl ::planus::WriteAsDefault<u32, u32>,
                field_offset_ns: impl ::planus::WriteAsDefault<i64, i64>,
                field_error_ns: impl ::planus::WriteAsDefault<u64, u64>,
                field_note: impl ::planus::WriteAsOptional<::planus::Offset<::core::primitive::str>>,
            ) -> ::planus::Offset<Self> {
                let prepared_source = field_source.prepare(builder, &0);
                let prepared_offset_ns = field_offset_ns.prepare(builder, &0);
                let prepared_error_ns = field_error_ns.prepare(builder, &0);
                let prepared_note = field_note.prepare(builder);

                let mut table_writer: ::planus::table_writer::TableWriter<12> =
                    ::core::default::Default::default();
                if prepared_offset_ns.is_some() {
                    table_writer.write_entry::<i64>(1);
                }
                if prepared_error_ns.is_some() {
                    table_writer.write_entry::<u64>(2);
                }
                if prepared_source.is_some() {
                    table_writer.write_entry::<u32>(0);
                }
                if prepared_note.is_some() {
                    table_writer.write_entry::<::planus::Offset<str>>(3);
                }

                unsafe {
                    table_writer.finish(builder, |object_writer| {
                        if let ::core::option::Option::Some(prepared_offset_ns) = prepared_offset_ns {
                            object_writer.write::<_, _, 8>(&prepared_offset_ns);
                        }
                        if let ::core::option::Option::Some(prepared_error_ns) = prepared_error_ns {
                            object_writer.write::<_, _, 8>(&prepared_error_ns);
                        }
                        if let ::core::option::Option::Some(prepared_source) = prepared_source {
                            object_writer.write::<_, _, 4>(&prepared_source);
                        }
                        if let ::core::option::Option::Some(prepared_note) = prepared_note {
                            object_writer.write::<_, _, 4>(&prepared_note);
                        }
                    });
                }
                builder.current_offset()
            }
        }

        impl ::planus::WriteAs<::planus::Offset<Clock>> for Clock {
            type Prepared = ::planus::Offset<Self>;

            #[inline]
            fn prepare(&self, builder: &mut ::planus::Builder) -> ::planus::Offset<Clock> {
                ::planus::WriteAsOffset::prepare(self, builder)
            }
        }

        impl ::planus::WriteAsOptional<::planus::Offset<Clock>> for Clock {
            type Prepared = ::planus::Offset<Self>;

            #[inline]
            fn prepare(
                &self,
                builder: &mut ::planus::Builder,
            ) -> ::core::option::Option<::planus::Offset<Clock>> {
                ::core::option::Option::Some(::planus::WriteAsOffset::prepare(self, builder))
            }
        }

        impl ::planus::WriteAsOffset<Clock> for Clock {
            #[inline]
            fn prepare(&self, builder: &mut ::planus::Builder) -> ::planus::Offset<Clock> {
                Clock::create(builder, self.source, self.offset_ns, self.error_ns, &self.note)
            }
        }

        /// Builder for serializing an instance of the [Clock] type.
        ///
        /// Can be created using the [Clock::builder] method.
        #[derive(Debug)]
        #[must_use]
        pub struct ClockBuilder<State>(State);

        impl ClockBuilder<()> {
            /// Setter for the [`source` field](Clock#structfield.source).
            #[inline]
            #[allow(clippy::type_complexity)]
            pub fn source<T0>(self, value: T0) -> ClockBuilder<(T0,)>
            where
                T0: ::planus::WriteAsDefault<u32, u32>,
            {
                ClockBuilder((value,))
            }

            /// Sets the [`source` field](Clock#structfield.source) to the default value.
            #[inline]
            #[allow(clippy::type_complexity)]
            pub fn source_as_default(self) -> ClockBuilder<(::planus::DefaultValue,)> {
                self.source(::planus::DefaultValue)
            }
        }

        impl<T0> ClockBuilder<(T0,)> {
            /// Setter for the [`offset_ns` field](Clock#structfield.offset_ns).
            #[inline]
            #[allow(clippy::type_complexity)]
            pub fn offset_ns<T1>(self, value: T1) -> ClockBuilder<(T0, T1)>
            where
                T1: ::planus::WriteAsDefault<i64, i64>,
            {
                let (v0,) = self.0;
                ClockBuilder((v0, value))
            }

            /// Sets the [`offset_ns` field](Clock#structfield.offset_ns) to the default value.
            #[inline]
            #[allow(clippy::type_complexity)]
            pub fn offset_ns_as_default(self) -> ClockBuilder<(T0, ::planus::DefaultValue)> {
                self.offset_ns(::planus::DefaultValue)
            }
        }

        impl<T0, T1> ClockBuilder<(T0, T1)> {
            /// Setter for the [`error_ns` field](Clock#structfield.error_ns).
            #[inline]
            #[allow(clippy::type_complexity)]
            pub fn error_ns<T2>(self, value: T2) -> ClockBuilder<(T0, T1, T2)>
            where
                T2: ::planus::WriteAsDefault<u64, u64>,
            {
                let (v0, v1) = self.0;
                ClockBuilder((v0, v1, value))
            }

            /// Sets the [`error_ns` field](Clock#structfield.error_ns) to the default value.
            #[inline]
            #[allow(clippy::type_complexity)]
            pub fn error_ns_as_default(self) -> ClockBuilder<(T0, T1, ::planus::DefaultValue)> {
                self.error_ns(::planus::DefaultValue)
            }
        }

        impl<T0, T1, T2> ClockBuilder<(T0, T1, T2)> {
            /// Setter for the [`note` field](Clock#structfield.note).
            #[inline]
            #[allow(clippy::type_complexity)]
            pub fn note<T3>(self, value: T3) -> ClockBuilder<(T0, T1, T2, T3)>
            where
                T3: ::planus::WriteAsOptional<::planus::Offset<::core::primitive::str>>,
            {
                let (v0, v1, v2) = self.0;
                ClockBuilder((v0, v1, v2, value))
            }

            /// Sets the [`note` field](Clock#structfield.note) to null.
            #[inline]
            #[allow(clippy::type_complexity)]
            pub fn note_as_null(self) -> ClockBuilder<(T0, T1, T2, ())> {
                self.note(())
            }
        }

        impl<T0, T1, T2, T3> ClockBuilder<(T0, T1, T2, T3)> {
            /// Finish writing the builder to get an [Offset](::planus::Offset) to a serialized [Clock].
            #[inline]
            pub fn finish(self, builder: &mut ::planus::Builder) -> ::planus::Offset<Clock>
            where
                Self: ::planus::WriteAsOffset<Clock>,
            {
                ::planus::WriteAsOffset::prepare(&self, builder)
            }
        }

        impl<
                T0: ::planus::WriteAsDefault<u32, u32>,
                T1: ::planus::WriteAsDefault<i64, i64>,
                T2: ::planus::WriteAsDefault<u64, u64>,
                T3: ::planus::WriteAsOptional<::planus::Offset<::core::primitive::str>>,
            > ::planus::WriteAs<::planus::Offset<Clock>> for ClockBuilder<(T0, T1, T2, T3)>
        {
            type Prepared = ::planus::Offset<Clock>;

            #[inline]
            fn prepare(&self, builder: &mut ::planus::Builder) -> ::planus::Offset<Clock> {
                ::planus::WriteAsOffset::prepare(self, builder)
            }
        }

        impl<
                T0: ::planus::WriteAsDefault<u32, u32>,
                T1: ::planus::WriteAsDefault<i64, i64>,
                T2: ::planus::WriteAsDefault<u64, u64>,
                T3: ::planus::WriteAsOptional<::planus::Offset<::core::primitive::str>>,
            > ::planus::WriteAsOptional<::planus::Offset<Clock>> for ClockBuilder<(T0, T1, T2, T3)>
        {
            type Prepared = ::planus::Offset<Clock>;

            #[inline]
            fn prepare(
                &self,
                builder: &mut ::planus::Builder,
            ) -> ::core::option::Option<::planus::Offset<Clock>> {
                ::core::option::Option::Some(::planus::WriteAsOffset::prepare(self, builder))
            }
        }

        impl<
                T0: ::planus::WriteAsDefault<u32, u32>,
                T1: ::planus::WriteAsDefault<i64, i64>,
                T2: ::planus::WriteAsDefault<u64, u64>,
                T3: ::planus::WriteAsOptional<::planus::Offset<::core::primitive::str>>,
            > ::planus::WriteAsOffset<Clock> for ClockBuilder<(T0, T1, T2, T3)>
        {
            #[inline]
            fn prepare(&self, builder: &mut ::planus::Builder) -> ::planus::Offset<Clock> {
                let (v0, v1, v2, v3) = &self.0;
                Clock::create(builder, v0, v1, v2, v3)
            }
        }

        /// Reference to a deserialized [Clock].
        #[derive(Copy, Clone)]
        pub struct ClockRef<'a>(#[allow(dead_code)] ::planus::table_reader::Table<'a>);

        impl<'a> ClockRef<'a> {
            /// Getter for the [`source` field](Clock#structfield.source).
            #[inline]
            pub fn source(&self) -> ::planus::Result<u32> {
                ::core::result::Result::Ok(self.0.access(0, "Clock", "source")?.unwrap_or(0))
            }

            /// Getter for the [`offset_ns` field](Clock#structfield.offset_ns).
            #[inline]
            pub fn offset_ns(&self) -> ::planus::Result<i64> {
                ::core::result::Result::Ok(self.0.access(1, "Clock", "offset_ns")?.unwrap_or(0))
            }

            /// Getter for the [`error_ns` field](Clock#structfield.error_ns).
            #[inline]
            pub fn error_ns(&self) -> ::planus::Result<u64> {
                ::core::result::Result::Ok(self.0.access(2, "Clock", "error_ns")?.unwrap_or(0))
            }

            /// Getter for the [`note` field](Clock#structfield.note).
            #[inline]
            pub fn note(&self) -> ::planus::Result<::core::option::Option<&'a ::core::primitive::str>> {
                self.0.access(3, "Clock", "note")
            }
        }

        impl<'a> ::core::fmt::Debug for ClockRef<'a> {
            fn fmt(&self, f: &mut ::core::fmt::Formatter<'_>) -> ::core::fmt::Result {
                let mut f = f.debug_struct("ClockRef");
                f.field("source", &self.source());
                f.field("offset_ns", &self.offset_ns());
                f.field("error_ns", &self.error_ns());
                if let ::core::option::Option::Some(field_note) = self.note().transpose() {
                    f.field("note", &field_note);
                }
                f.finish()
            }
        }

        impl<'a> ::core::convert::TryFrom<ClockRef<'a>> for Clock {
            type Error = ::planus::Error;

            #[allow(unreachable_code)]
            fn try_from(value: ClockRef<'a>) -> ::planus::Result<Self> {
                ::core::result::Result::Ok(Self {
                    source: ::core::convert::TryInto::try_into(value.source()?)?,
                    offset_ns: ::core::convert::TryInto::try_into(value.offset_ns()?)?,
                    error_ns: ::core::convert::TryInto::try_into(value.error_ns()?)?,
                    note: value.note()?.map(::core::convert::Into::into),
                })
            }
        }

        impl<'a> ::planus::TableRead<'a> for ClockRef<'a> {
            #[inline]
            fn from_buffer(
                buffer: ::planus::SliceWithStartOffset<'a>,
                offset: usize,
            ) -> ::core::result::Result<Self, ::planus::errors::ErrorKind> {
                ::core::result::Result::Ok(Self(::planus::table_reader::Table::from_buffer(buffer, offset)?))
            }
        }

        impl<'a> ::planus::VectorReadInner<'a> for ClockRef<'a> {
            type Error = ::planus::Error;
            const STRIDE: usize = 4;

            unsafe fn from_buffer(
                buffer: ::planus::SliceWithStartOffset<'a>,
                offset: usize,
            ) -> ::planus::Result<Self> {
                ::planus::TableRead::from_buffer(buffer, offset).map_err(|error_kind| {
                    error_kind.with_error_location("[ClockRef]", "get", buffer.offset_from_start)
                })
            }
        }

        /// # Safety
        /// The planus compiler generates implementations that initialize
        /// the bytes in `write_values`.
        unsafe impl ::planus::VectorWrite<::planus::Offset<Clock>> for Clock {
            type Value = ::planus::Offset<Clock>;
            const STRIDE: usize = 4;
            #[inline]
            fn prepare(&self, builder: &mut ::planus::Builder) -> Self::Value {
                ::planus::WriteAs::prepare(self, builder)
            }

            #[inline]
            unsafe fn write_values(
                values: &[::planus::Offset<Clock>],
                bytes: *mut ::core::mem::MaybeUninit<u8>,
                buffer_position: u32,
            ) {
                let bytes = bytes as *mut [::core::mem::MaybeUninit<u8>; 4];
                for (i, v) in ::core::iter::Iterator::enumerate(values.iter()) {
                    ::planus::WriteAsPrimitive::write(
                        v,
                        ::planus::Cursor::new(unsafe { &mut *bytes.add(i) }),
                        buffer_position - (Self::STRIDE * i) as u32,
                    );
                }
            }
        }

        impl<'a> ::planus::ReadAsRoot<'a> for ClockRef<'a> {
            fn read_as_root(slice: &'a [u8]) -> ::planus::Result<Self> {
                ::planus::TableRead::from_buffer(
                    ::planus::SliceWithStartOffset { buffer: slice, offset_from_start: 0 },
                    0,
                )
                .map_err(|error_kind| error_kind.with_error_location("[ClockRef]", "read_as_root", 0))
            }
        }

        /// The table `LossCount` in the namespace `capture`
        ///
        /// Generated from these locations:
        /// * Table `LossCount` in the file `schemas/capture.fbs:34`
        #[derive(
            Clone, Debug, PartialEq, PartialOrd, Eq, Ord, Hash, ::serde::Serialize, ::serde::Deserialize,
        )]
        pub struct LossCount {
            /// The field `counter` in the table `LossCount`
            pub counter: u16,
            /// The field `count` in the table `LossCount`
            pub count: u64,
        }

        #[allow(clippy::derivable_impls)]
        impl ::core::default::Default for LossCount {
            fn default() -> Self {
                Self { counter: 0, count: 0 }
            }
        }

        impl LossCount {
            /// Creates a [LossCountBuilder] for serializing an instance of this table.
            #[inline]
            pub fn builder() -> LossCountBuilder<()> {
                LossCountBuilder(())
            }

            #[allow(clippy::too_many_arguments)]
            pub fn create(
                builder: &mut ::planus::Builder,
                field_counter: impl ::planus::WriteAsDefault<u16, u16>,
                field_count: impl ::planus::WriteAsDefault<u64, u64>,
            ) -> ::planus::Offset<Self> {
                let prepared_counter = field_counter.prepare(builder, &0);
                let prepared_count = field_count.prepare(builder, &0);

                let mut table_writer: ::planus::table_writer::TableWriter<8> =
                    ::core::default::Default::default();
                if prepared_count.is_some() {
                    table_writer.write_entry::<u64>(1);
                }
                if prepared_counter.is_some() {
                    table_writer.write_entry::<u16>(0);
                }

                unsafe {
                    table_writer.finish(builder, |object_writer| {
                        if let ::core::option::Option::Some(prepared_count) = prepared_count {
                            object_writer.write::<_, _, 8>(&prepared_count);
                        }
                        if let ::core::option::Option::Some(prepared_counter) = prepared_counter {
                            object_writer.write::<_, _, 2>(&prepared_counter);
                        }
                    });
                }
                builder.current_offset()
            }
        }

        impl ::planus::WriteAs<::planus::Offset<LossCount>> for LossCount {
            type Prepared = ::planus::Offset<Self>;

            #[inline]
            fn prepare(&self, builder: &mut ::planus::Builder) -> ::planus::Offset<LossCount> {
                ::planus::WriteAsOffset::prepare(self, builder)
            }
        }

        impl ::planus::WriteAsOptional<::planus::Offset<LossCount>> for LossCount {
            type Prepared = ::planus::Offset<Self>;

            #[inline]
            fn prepare(
                &self,
                builder: &mut ::planus::Builder,
            ) -> ::core::option::Option<::planus::Offset<LossCount>> {
                ::core::option::Option::Some(::planus::WriteAsOffset::prepare(self, builder))
            }
        }

        impl ::planus::WriteAsOffset<LossCount> for LossCount {
            #[inline]
            fn prepare(&self, builder: &mut ::planus::Builder) -> ::planus::Offset<LossCount> {
                LossCount::create(builder, self.counter, self.count)
            }
        }

        /// Builder for serializing an instance of the [LossCount] type.
        ///
        /// Can be created using the [LossCount::builder] method.
        #[derive(Debug)]
        #[must_use]
        pub struct LossCountBuilder<State>(State);

        impl LossCountBuilder<()> {
            /// Setter for the [`counter` field](LossCount#structfield.counter).
            #[inline]
            #[allow(clippy::type_complexity)]
            pub fn counter<T0>(self, value: T0) -> LossCountBuilder<(T0,)>
            where
                T0: ::planus::WriteAsDefault<u16, u16>,
            {
                LossCountBuilder((value,))
            }

            /// Sets the [`counter` field](LossCount#structfield.counter) to the default value.
            #[inline]
            #[allow(clippy::type_complexity)]
            pub fn counter_as_default(self) -> LossCountBuilder<(::planus::DefaultValue,)> {
                self.counter(::planus::DefaultValue)
            }
        }

        impl<T0> LossCountBuilder<(T0,)> {
            /// Setter for the [`count` field](LossCount#structfield.count).
            #[inline]
            #[allow(clippy::type_complexity)]
            pub fn count<T1>(self, value: T1) -> LossCountBuilder<(T0, T1)>
            where
                T1: ::planus::WriteAsDefault<u64, u64>,
            {
                let (v0,) = self.0;
                LossCountBuilder((v0, value))
            }

            /// Sets the [`count` field](LossCount#structfield.count) to the default value.
            #[inline]
            #[allow(clippy::type_complexity)]
            pub fn count_as_default(self) -> LossCountBuilder<(T0, ::planus::DefaultValue)> {
                self.count(::planus::DefaultValue)
            }
        }

        impl<T0, T1> LossCountBuilder<(T0, T1)> {
            /// Finish writing the builder to get an [Offset](::planus::Offset) to a serialized [LossCount].
            #[inline]
            pub fn finish(self, builder: &mut ::planus::Builder) -> ::planus::Offset<LossCount>
            where
                Self: ::planus::WriteAsOffset<LossCount>,
            {
                ::planus::WriteAsOffset::prepare(&self, builder)
            }
        }

        impl<T0: ::planus::WriteAsDefault<u16, u16>, T1: ::planus::WriteAsDefault<u64, u64>>
            ::planus::WriteAs<::planus::Offset<LossCount>> for LossCountBuilder<(T0, T1)>
        {
            type Prepared = ::planus::Offset<LossCount>;

            #[inline]
            fn prepare(&self, builder: &mut ::planus::Builder) -> ::planus::Offset<LossCount> {
                ::planus::WriteAsOffset::prepare(self, builder)
            }
        }

        impl<T0: ::planus::WriteAsDefault<u16, u16>, T1: ::planus::WriteAsDefault<u64, u64>>
            ::planus::WriteAsOptional<::planus::Offset<LossCount>> for LossCountBuilder<(T0, T1)>
        {
            type Prepared = ::planus::Offset<LossCount>;

            #[inline]
            fn prepare(
                &self,
                builder: &mut ::planus::Builder,
            ) -> ::core::option::Option<::planus::Offset<LossCount>> {
                ::core::option::Option::Some(::planus::WriteAsOffset::prepare(self, builder))
            }
        }

        impl<T0: ::planus::WriteAsDefault<u16, u16>, T1: ::planus::WriteAsDefault<u64, u64>>
            ::planus::WriteAsOffset<LossCount> for LossCountBuilder<(T0, T1)>
        {
            #[inline]
            fn prepare(&self, builder: &mut ::planus::Builder) -> ::planus::Offset<LossCount> {
                let (v0, v1) = &self.0;
                LossCount::create(builder, v0, v1)
            }
        }

        /// Reference to a deserialized [LossCount].
        #[derive(Copy, Clone)]
        pub struct LossCountRef<'a>(#[allow(dead_code)] ::planus::table_reader::Table<'a>);

        impl<'a> LossCountRef<'a> {
            /// Getter for the [`counter` field](LossCount#structfield.counter).
            #[inline]
            pub fn counter(&self) -> ::planus::Result<u16> {
                ::core::result::Result::Ok(self.0.access(0, "LossCount", "counter")?.unwrap_or(0))
            }

            /// Getter for the [`count` field](LossCount#structfield.count).
            #[inline]
            pub fn count(&self) -> ::planus::Result<u64> {
                ::core::result::Result::Ok(self.0.access(1, "LossCount", "count")?.unwrap_or(0))
            }
        }

        impl<'a> ::core::fmt::Debug for LossCountRef<'a> {
            fn fmt(&self, f: &mut ::core::fmt::Formatter<'_>) -> ::core::fmt::Result {
                let mut f = f.debug_struct("LossCountRef");
                f.field("counter", &self.counter());
                f.field("count", &self.count());
                f.finish()
            }
        }

        impl<'a> ::core::convert::TryFrom<LossCountRef<'a>> for LossCount {
            type Error = ::planus::Error;

            #[allow(unreachable_code)]
            fn try_from(value: LossCountRef<'a>) -> ::planus::Result<Self> {
                ::core::result::Result::Ok(Self {
                    counter: ::core::convert::TryInto::try_into(value.counter()?)?,
                    count: ::core::convert::TryInto::try_into(value.count()?)?,
                })
            }
        }

        impl<'a> ::planus::TableRead<'a> for LossCountRef<'a> {
            #[inline]
            fn from_buffer(
                buffer: ::planus::SliceWithStartOffset<'a>,
                offset: usize,
            ) -> ::core::result::Result<Self, ::planus::errors::ErrorKind> {
                ::core::result::Result::Ok(Self(::planus::table_reader::Table::from_buffer(buffer, offset)?))
            }
        }

        impl<'a> ::planus::VectorReadInner<'a> for LossCountRef<'a> {
            type Error = ::planus::Error;
            const STRIDE: usize = 4;

            unsafe fn from_buffer(
                buffer: ::planus::SliceWithStartOffset<'a>,
                offset: usize,
            ) -> ::planus::Result<Self> {
                ::planus::TableRead::from_buffer(buffer, offset).map_err(|error_kind| {
                    error_kind.with_error_location("[LossCountRef]", "get", buffer.offset_from_start)
                })
            }
        }

        /// # Safety
        /// The planus compiler generates implementations that initialize
        /// the bytes in `write_values`.
        unsafe impl ::planus::VectorWrite<::planus::Offset<LossCount>> for LossCount {
            type Value = ::planus::Offset<LossCount>;
            const STRIDE: usize = 4;
            #[inline]
            fn prepare(&self, builder: &mut ::planus::Builder) -> Self::Value {
                ::planus::WriteAs::prepare(self, builder)
            }

            #[inline]
            unsafe fn write_values(
                values: &[::planus::Offset<LossCount>],
                bytes: *mut ::core::mem::MaybeUninit<u8>,
                buffer_position: u32,
            ) {
                let bytes = bytes as *mut [::core::mem::MaybeUninit<u8>; 4];
                for (i, v) in ::core::iter::Iterator::enumerate(values.iter()) {
                    ::planus::WriteAsPrimitive::write(
                        v,
                        ::planus::Cursor::new(unsafe { &mut *bytes.add(i) }),
                        buffer_position - (Self::STRIDE * i) as u32,
                    );
                }
            }
        }

        impl<'a> ::planus::ReadAsRoot<'a> for LossCountRef<'a> {
            fn read_as_root(slice: &'a [u8]) -> ::planus::Result<Self> {
                ::planus::TableRead::from_buffer(
                    ::planus::SliceWithStartOffset { buffer: slice, offset_from_start: 0 },
                    0,
                )
                .map_err(|error_kind| error_kind.with_error_location("[LossCountRef]", "read_as_root", 0))
            }
        }

        /// The table `Source` in the namespace `capture`
        ///
        /// Generated from these locations:
        /// * Table `Source` in the file `schemas/capture.fbs:36`
        #[derive(
            Clone, Debug, PartialEq, PartialOrd, Eq, Ord, Hash, ::serde::Serialize, ::serde::Deserialize,
        )]
        pub struct Source {
            /// The field `index` in the table `Source`
            pub index: u32,
            /// The field `path` in the table `Source`
            pub path: ::core::option::Option<::planus::alloc::string::String>,
            /// The field `format` in the table `Source`
            pub format: ::core::option::Option<::planus::alloc::string::String>,
        }

        #[allow(clippy::derivable_impls)]
        impl ::core::default::Default for Source {
            fn default() -> Self {
                Self {
                    index: 0,
                    path: ::core::default::Default::default(),
                    format: ::core::default::Default::default(),
                }
            }
        }

        impl Source {
            /// Creates a [SourceBuilder] for serializing an instance of this table.
            #[inline]
            pub fn builder() -> SourceBuilder<()> {
                SourceBuilder(())
            }

            #[allow(clippy::too_many_arguments)]
            pub fn create(
                builder: &mut ::planus::Builder,
                field_index: impl ::planus::WriteAsDefault<u32, u32>,
                field_path: impl ::planus::WriteAsOptional<::planus::Offset<::core::primitive::str>>,
                field_format: impl ::planus::WriteAsOptional<::planus::Offset<::core::primitive::str>>,
            ) -> ::planus::Offset<Self> {
                let prepared_index = field_index.prepare(builder, &0);
                let prepared_path = field_path.prepare(builder);
                let prepared_format = field_format.prepare(builder);

                let mut table_writer: ::planus::table_writer::TableWriter<10> =
                    ::core::default::Default::default();
                if prepared_index.is_some() {
                    table_writer.write_entry::<u32>(0);
                }
                if prepared_path.is_some() {
                    table_writer.write_entry::<::planus::Offset<str>>(1);
                }
                if prepared_format.is_some() {
                    table_writer.write_entry::<::planus::Offset<str>>(2);
                }

                unsafe {
                    table_writer.finish(builder, |object_writer| {
                        if let ::core::option::Option::Some(prepared_index) = prepared_index {
                            object_writer.write::<_, _, 4>(&prepared_index);
                        }
                        if let ::core::option::Option::Some(prepared_path) = prepared_path {
                            object_writer.write::<_, _, 4>(&prepared_path);
                        }
                        if let ::core::option::Option::Some(prepared_format) = prepared_format {
                            object_writer.write::<_, _, 4>(&prepared_format);
                        }
                    });
                }
                builder.current_offset()
            }
        }

        impl ::planus::WriteAs<::planus::Offset<Source>> for Source {
            type Prepared = ::planus::Offset<Self>;

            #[inline]
            fn prepare(&self, builder: &mut ::planus::Builder) -> ::planus::Offset<Source> {
                ::planus::WriteAsOffset::prepare(self, builder)
            }
        }

        impl ::planus::WriteAsOptional<::planus::Offset<Source>> for Source {
            type Prepared = ::planus::Offset<Self>;

            #[inline]
            fn prepare(
                &self,
                builder: &mut ::planus::Builder,
            ) -> ::core::option::Option<::planus::Offset<Source>> {
                ::core::option::Option::Some(::planus::WriteAsOffset::prepare(self, builder))
            }
        }

        impl ::planus::WriteAsOffset<Source> for Source {
            #[inline]
            fn prepare(&self, builder: &mut ::planus::Builder) -> ::planus::Offset<Source> {
                Source::create(builder, self.index, &self.path, &self.format)
            }
        }

        /// Builder for serializing an instance of the [Source] type.
        ///
        /// Can be created using the [Source::builder] method.
        #[derive(Debug)]
        #[must_use]
        pub struct SourceBuilder<State>(State);

        impl SourceBuilder<()> {
            /// Setter for the [`index` field](Source#structfield.index).
            #[inline]
            #[allow(clippy::type_complexity)]
            pub fn index<T0>(self, value: T0) -> SourceBuilder<(T0,)>
            where
                T0: ::planus::WriteAsDefault<u32, u32>,
            {
                SourceBuilder((value,))
            }

            /// Sets the [`index` field](Source#structfield.index) to the default value.
            #[inline]
            #[allow(clippy::type_complexity)]
            pub fn index_as_default(self) -> SourceBuilder<(::planus::DefaultValue,)> {
                self.index(::planus::DefaultValue)
            }
        }

        impl<T0> SourceBuilder<(T0,)> {
            /// Setter for the [`path` field](Source#structfield.path).
            #[inline]
            #[allow(clippy::type_complexity)]
            pub fn path<T1>(self, value: T1) -> SourceBuilder<(T0, T1)>
            where
                T1: ::planus::WriteAsOptional<::planus::Offset<::core::primitive::str>>,
            {
                let (v0,) = self.0;
                SourceBuilder((v0, value))
            }

            /// Sets the [`path` field](Source#structfield.path) to null.
            #[inline]
            #[allow(clippy::type_complexity)]
            pub fn path_as_null(self) -> SourceBuilder<(T0, ())> {
                self.path(())
            }
        }

        impl<T0, T1> SourceBuilder<(T0, T1)> {
            /// Setter for the [`format` field](Source#structfield.format).
            #[inline]
            #[allow(clippy::type_complexity)]
            pub fn format<T2>(self, value: T2) -> SourceBuilder<(T0, T1, T2)>
            where
                T2: ::planus::WriteAsOptional<::planus::Offset<::core::primitive::str>>,
            {
                let (v0, v1) = self.0;
                SourceBuilder((v0, v1, value))
            }

            /// Sets the [`format` field](Source#structfield.format) to null.
            #[inline]
            #[allow(clippy::type_complexity)]
            pub fn format_as_null(self) -> SourceBuilder<(T0, T1, ())> {
                self.format(())
            }
        }

        impl<T0, T1, T2> SourceBuilder<(T0, T1, T2)> {
            /// Finish writing the builder to get an [Offset](::planus::Offset) to a serialized [Source].
            #[inline]
            pub fn finish(self, builder: &mut ::planus::Builder) -> ::planus::Offset<Source>
            where
                Self: ::planus::WriteAsOffset<Source>,
            {
                ::planus::WriteAsOffset::prepare(&self, builder)
            }
        }

        impl<
                T0: ::planus::WriteAsDefault<u32, u32>,
                T1: ::planus::WriteAsOptional<::planus::Offset<::core::primitive::str>>,
                T2: ::planus::WriteAsOptional<::planus::Offset<::core::primitive::str>>,
            > ::planus::WriteAs<::planus::Offset<Source>> for SourceBuilder<(T0, T1, T2)>
        {
            type Prepared = ::planus::Offset<Source>;

            #[inline]
            fn prepare(&self, builder: &mut ::planus::Builder) -> ::planus::Offset<Source> {
                ::planus::WriteAsOffset::prepare(self, builder)
            }
        }

        impl<
                T0: ::planus::WriteAsDefault<u32, u32>,
                T1: ::planus::WriteAsOptional<::planus::Offset<::core::primitive::str>>,
                T2: ::planus::WriteAsOptional<::planus::Offset<::core::primitive::str>>,
            > ::planus::WriteAsOptional<::planus::Offset<Source>> for SourceBuilder<(T0, T1, T2)>
        {
            type Prepared = ::planus::Offset<Source>;

            #[inline]
            fn prepare(
                &self,
                builder: &mut ::planus::Builder,
            ) -> ::core::option::Option<::planus::Offset<Source>> {
                ::core::option::Option::Some(::planus::WriteAsOffset::prepare(self, builder))
            }
        }

        impl<
                T0: ::planus::WriteAsDefault<u32, u32>,
                T1: ::planus::WriteAsOptional<::planus::Offset<::core::primitive::str>>,
                T2: ::planus::WriteAsOptional<::planus::Offset<::core::primitive::str>>,
            > ::planus::WriteAsOffset<Source> for SourceBuilder<(T0, T1, T2)>
        {
            #[inline]
            fn prepare(&self, builder: &mut ::planus::Builder) -> ::planus::Offset<Source> {
                let (v0, v1, v2) = &self.0;
                Source::create(builder, v0, v1, v2)
            }
        }

        /// Reference to a deserialized [Source].
        #[derive(Copy, Clone)]
        pub struct SourceRef<'a>(#[allow(dead_code)] ::planus::table_reader::Table<'a>);

        impl<'a> SourceRef<'a> {
            /// Getter for the [`index` field](Source#structfield.index).
            #[inline]
            pub fn index(&self) -> ::planus::Result<u32> {
                ::core::result::Result::Ok(self.0.access(0, "Source", "index")?.unwrap_or(0))
            }

            /// Getter for the [`path` field](Source#structfield.path).
            #[inline]
            pub fn path(&self) -> ::planus::Result<::core::option::Option<&'a ::core::primitive::str>> {
                self.0.access(1, "Source", "path")
            }

            /// Getter for the [`format` field](Source#structfield.format).
            #[inline]
            pub fn format(&self) -> ::planus::Result<::core::option::Option<&'a ::core::primitive::str>> {
                self.0.access(2, "Source", "format")
            }
        }

        impl<'a> ::core::fmt::Debug for SourceRef<'a> {
            fn fmt(&self, f: &mut ::core::fmt::Formatter<'_>) -> ::core::fmt::Result {
                let mut f = f.debug_struct("SourceRef");
                f.field("index", &self.index());
                if let ::core::option::Option::Some(field_path) = self.path().transpose() {
                    f.field("path", &field_path);
                }
                if let ::core::option::Option::Some(field_format) = self.format().transpose() {
                    f.field("format", &field_format);
                }
                f.finish()
            }
        }

        impl<'a> ::core::convert::TryFrom<SourceRef<'a>> for Source {
            type Error = ::planus::Error;

            #[allow(unreachable_code)]
            fn try_from(value: SourceRef<'a>) -> ::planus::Result<Self> {
                ::core::result::Result::Ok(Self {
                    index: ::core::convert::TryInto::try_into(value.index()?)?,
                    path: value.path()?.map(::core::convert::Into::into),
                    format: value.format()?.map(::core::convert::Into::into),
                })
            }
        }

        impl<'a> ::planus::TableRead<'a> for SourceRef<'a> {
            #[inline]
            fn from_buffer(
                buffer: ::planus::SliceWithStartOffset<'a>,
                offset: usize,
            ) -> ::core::result::Result<Self, ::planus::errors::ErrorKind> {
                ::core::result::Result::Ok(Self(::planus::table_reader::Table::from_buffer(buffer, offset)?))
            }
        }

        impl<'a> ::planus::VectorReadInner<'a> for SourceRef<'a> {
            type Error = ::planus::Error;
            const STRIDE: usize = 4;

            unsafe fn from_buffer(
                buffer: ::planus::SliceWithStartOffset<'a>,
                offset: usize,
            ) -> ::planus::Result<Self> {
                ::planus::TableRead::from_buffer(buffer, offset).map_err(|error_kind| {
                    error_kind.with_error_location("[SourceRef]", "get", buffer.offset_from_start)
                })
            }
        }

        /// # Safety
        /// The planus compiler generates implementations that initialize
        /// the bytes in `write_values`.
        unsafe impl ::planus::VectorWrite<::planus::Offset<Source>> for Source {
            type Value = ::planus::Offset<Source>;
            const STRIDE: usize = 4;
            #[inline]
            fn prepare(&self, builder: &mut ::planus::Builder) -> Self::Value {
                ::planus::WriteAs::prepare(self, builder)
            }

            #[inline]
            unsafe fn write_values(
                values: &[::planus::Offset<Source>],
                bytes: *mut ::core::mem::MaybeUninit<u8>,
                buffer_position: u32,
            ) {
                let bytes = bytes as *mut [::core::mem::MaybeUninit<u8>; 4];
                for (i, v) in ::core::iter::Iterator::enumerate(values.iter()) {
                    ::planus::WriteAsPrimitive::write(
                        v,
                        ::planus::Cursor::new(unsafe { &mut *bytes.add(i) }),
                        buffer_position - (Self::STRIDE * i) as u32,
                    );
                }
            }
        }

        impl<'a> ::planus::ReadAsRoot<'a> for SourceRef<'a> {
            fn read_as_root(slice: &'a [u8]) -> ::planus::Result<Self> {
                ::planus::TableRead::from_buffer(
                    ::planus::SliceWithStartOffset { buffer: slice, offset_from_start: 0 },
                    0,
                )
                .map_err(|error_kind| error_kind.with_error_location("[SourceRef]", "read_as_root", 0))
            }
        }

        /// The table `Process` in the namespace `capture`
        ///
        /// Generated from these locations:
        /// * Table `Process` in the file `schemas/capture.fbs:38`
        #[derive(
            Clone, Debug, PartialEq, PartialOrd, Eq, Ord, Hash, ::serde::Serialize, ::serde::Deserialize,
        )]
        pub struct Process {
            /// The field `index` in the table `Process`
            pub index: u32,
            /// The field `source` in the table `Process`
            pub source: u32,
            /// The field `pid` in the table `Process`
            pub pid: i64,
            /// The field `name` in the table `Process`
            pub name: ::core::option::Option<::planus::alloc::string::String>,
            /// The field `rank` in the table `Process`
            pub rank: i64,
            /// The field `world_size` in the table `Process`
            pub world_size: i64,
            /// The field `host` in the table `Process`
            pub host: ::core::option::Option<::planus::alloc::string::String>,
            /// The field `job` in the table `Process`
            pub job: ::core::option::Option<::planus::alloc::string::String>,
        }

        #[allow(clippy::derivable_impls)]
        impl ::core::default::Default for Process {
            fn default() -> Self {
                Self {
                    index: 0,
                    source: 0,
                    pid: 0,
                    name: ::core::default::Default::default(),
                    rank: -1,
                    world_size: -1,
                    host: ::core::default::Default::default(),
                    job: ::core::default::Default::default(),
                }
            }
        }

        impl Process {
            /// Creates a [ProcessBuilder] for serializing an instance of this table.
            #[inline]
            pub fn builder() -> ProcessBuilder<()> {
                ProcessBuilder(())
            }

            #[allow(clippy::too_many_arguments)]
            pub fn create(
                builder: &mut ::planus::Builder,
                field_index: impl ::planus::WriteAsDefault<u32, u32>,
                field_source: impl ::planus::WriteAsDefault<u32, u32>,
                field_pid: impl ::planus::WriteAsDefault<i64, i64>,
                field_name: impl ::planus::WriteAsOptional<::planus::Offset<::core::primitive::str>>,
                field_rank: impl ::planus::WriteAsDefault<i64, i64>,
                field_world_size: impl ::planus::WriteAsDefault<i64, i64>,
                field_host: impl ::planus::WriteAsOptional<::planus::Offset<::core::primitive::str>>,
                field_job: impl ::planus::WriteAsOptional<::planus::Offset<::core::primitive::str>>,
            ) -> ::planus::Offset<Self> {
                let prepared_index = field_index.prepare(builder, &0);
                let prepared_source = field_source.prepare(builder, &0);
                let prepared_pid = field_pid.prepare(builder, &0);
                let prepared_name = field_name.prepare(builder);
                let prepared_rank = field_rank.prepare(builder, &-1);
                let prepared_world_size = field_world_size.prepare(builder, &-1);
                let prepared_host = field_host.prepare(builder);
                let prepared_job = field_job.prepare(builder);

                let mut table_writer: ::planus::table_writer::TableWriter<20> =
                    ::core::default::Default::default();
                if prepared_pid.is_some() {
                    table_writer.write_entry::<i64>(2);
                }
                if prepared_rank.is_some() {
                    table_writer.write_entry::<i64>(4);
                }
                if prepared_world_size.is_some() {
                    table_writer.write_entry::<i64>(5);
                }
                if prepared_index.is_some() {
                    table_writer.write_entry::<u32>(0);
                }
                if prepared_source.is_some() {
                    table_writer.write_entry::<u32>(1);
                }
                if prepared_name.is_some() {
                    table_writer.write_entry::<::planus::Offset<str>>(3);
                }
                if prepared_host.is_some() {
                    table_writer.write_entry::<::planus::Offset<str>>(6);
                }
                if prepared_job.is_some() {
                    table_writer.write_entry::<::planus::Offset<str>>(7);
                }

                unsafe {
                    table_writer.finish(builder, |object_writer| {
                        if let ::core::option::Option::Some(prepared_pid) = prepared_pid {
                            object_writer.write::<_, _, 8>(&prepared_pid);
                        }
                        if let ::core::option::Option::Some(prepared_rank) = prepared_rank {
                            object_writer.write::<_, _, 8>(&prepared_rank);
                        }
                        if let ::core::option::Option::Some(prepared_world_size) = prepared_world_size {
                            object_writer.write::<_, _, 8>(&prepared_world_size);
                        }
                        if let ::core::option::Option::Some(prepared_index) = prepared_index {
                            object_writer.write::<_, _, 4>(&prepared_index);
                        }
                        if let ::core::option::Option::Some(prepared_source) = prepared_source {
                            object_writer.write::<_, _, 4>(&prepared_source);
                        }
                        if let ::core::option::Option::Some(prepared_name) = prepared_name {
                            object_writer.write::<_, _, 4>(&prepared_name);
                        }
                        if let ::core::option::Option::Some(prepared_host) = prepared_host {
                            object_writer.write::<_, _, 4>(&prepared_host);
                        }
                        if let ::core::option::Option::Some(prepared_job) = prepared_job {
                            object_writer.write::<_, _, 4>(&prepared_job);
                        }
                    });
                }
                builder.current_offset()
            }
        }

        impl ::planus::WriteAs<::planus::Offset<Process>> for Process {
            type Prepared = ::planus::Offset<Self>;

            #[inline]
            fn prepare(&self, builder: &mut ::planus::Builder) -> ::planus::Offset<Process> {
                ::planus::WriteAsOffset::prepare(self, builder)
            }
        }

        impl ::planus::WriteAsOptional<::planus::Offset<Process>> for Process {
            type Prepared = ::planus::Offset<Self>;

            #[inline]
            fn prepare(
                &self,
                builder: &mut ::planus::Builder,
            ) -> ::core::option::Option<::planus::Offset<Process>> {
                ::core::option::Option::Some(::planus::WriteAsOffset::prepare(self, builder))
            }
        }

        impl ::planus::WriteAsOffset<Process> for Process {
            #[inline]
            fn prepare(&self, builder: &mut ::planus::Builder) -> ::planus::Offset<Process> {
                Process::create(
                    builder,
                    self.index,
                    self.source,
                    self.pid,
                    &self.name,
                    self.rank,
                    self.world_size,
                    &self.host,
                    &self.job,
                )
            }
        }

        /// Builder for serializing an instance of the [Process] type.
        ///
        /// Can be created using the [Process::builder] method.
        #[derive(Debug)]
        #[must_use]
        pub struct ProcessBuilder<State>(State);

        impl ProcessBuilder<()> {
            /// Setter for the [`index` field](Process#structfield.index).
            #[inline]
            #[allow(clippy::type_complexity)]
            pub fn index<T0>(self, value: T0) -> ProcessBuilder<(T0,)>
            where
                T0: ::planus::WriteAsDefault<u32, u32>,
            {
                ProcessBuilder((value,))
            }

            /// Sets the [`index` field](Process#structfield.index) to the default value.
            #[inline]
            #[allow(clippy::type_complexity)]
            pub fn index_as_default(self) -> ProcessBuilder<(::planus::DefaultValue,)> {
                self.index(::planus::DefaultValue)
            }
        }

        impl<T0> ProcessBuilder<(T0,)> {
            /// Setter for the [`source` field](Process#structfield.source).
            #[inline]
            #[allow(clippy::type_complexity)]
            pub fn source<T1>(self, value: T1) -> ProcessBuilder<(T0, T1)>
            where
                T1: ::planus::WriteAsDefault<u32, u32>,
            {
                let (v0,) = self.0;
                ProcessBuilder((v0, value))
            }

            /// Sets the [`source` field](Process#structfield.source) to the default value.
            #[inline]
            #[allow(clippy::type_complexity)]
            pub fn source_as_default(self) -> ProcessBuilder<(T0, ::planus::DefaultValue)> {
                self.source(::planus::DefaultValue)
            }
        }

        impl<T0, T1> ProcessBuilder<(T0, T1)> {
            /// Setter for the [`pid` field](Process#structfield.pid).
            #[inline]
            #[allow(clippy::type_complexity)]
            pub fn pid<T2>(self, value: T2) -> ProcessBuilder<(T0, T1, T2)>
            where
                T2: ::planus::WriteAsDefault<i64, i64>,
            {
                let (v0, v1) = self.0;
                ProcessBuilder((v0, v1, value))
            }

            /// Sets the [`pid` field](Process#structfield.pid) to the default value.
            #[inline]
            #[allow(clippy::type_complexity)]
            pub fn pid_as_default(self) -> ProcessBuilder<(T0, T1, ::planus::DefaultValue)> {
                self.pid(::planus::DefaultValue)
            }
        }

        impl<T0, T1, T2> ProcessBuilder<(T0, T1, T2)> {
            /// Setter for the [`name` field](Process#structfield.name).
            #[inline]
            #[allow(clippy::type_complexity)]
            pub fn name<T3>(self, value: T3) -> ProcessBuilder<(T0, T1, T2, T3)>
            where
                T3: ::planus::WriteAsOptional<::planus::Offset<::core::primitive::str>>,
            {
                let (v0, v1, v2) = self.0;
                ProcessBuilder((v0, v1, v2, value))
            }

            /// Sets the [`name` field](Process#structfield.name) to null.
            #[inline]
            #[allow(clippy::type_complexity)]
            pub fn name_as_null(self) -> ProcessBuilder<(T0, T1, T2, ())> {
                self.name(())
            }
        }

        impl<T0, T1, T2, T3> ProcessBuilder<(T0, T1, T2, T3)> {
            /// Setter for the [`rank` field](Process#structfield.rank).
            #[inline]
            #[allow(clippy::type_complexity)]
            pub fn rank<T4>(self, value: T4) -> ProcessBuilder<(T0, T1, T2, T3, T4)>
            where
                T4: ::planus::WriteAsDefault<i64, i64>,
            {
                let (v0, v1, v2, v3) = self.0;
                ProcessBuilder((v0, v1, v2, v3, value))
            }

            /// Sets the [`rank` field](Process#structfield.rank) to the default value.
            #[inline]
            #[allow(clippy::type_complexity)]
            pub fn rank_as_default(self) -> ProcessBuilder<(T0, T1, T2, T3, ::planus::DefaultValue)> {
                self.rank(::planus::DefaultValue)
            }
        }

        impl<T0, T1, T2, T3, T4> ProcessBuilder<(T0, T1, T2, T3, T4)> {
            /// Setter for the [`world_size` field](Process#structfield.world_size).
            #[inline]
            #[allow(clippy::type_complexity)]
            pub fn world_size<T5>(self, value: T5) -> ProcessBuilder<(T0, T1, T2, T3, T4, T5)>
            where
                T5: ::planus::WriteAsDefault<i64, i64>,
            {
                let (v0, v1, v2, v3, v4) = self.0;
                ProcessBuilder((v0, v1, v2, v3, v4, value))
            }

            /// Sets the [`world_size` field](Process#structfield.world_size) to the default value.
            #[inline]
            #[allow(clippy::type_complexity)]
            pub fn world_size_as_default(
                self,
            ) -> ProcessBuilder<(T0, T1, T2, T3, T4, ::planus::DefaultValue)> {
                self.world_size(::planus::DefaultValue)
            }
        }

        impl<T0, T1, T2, T3, T4, T5> ProcessBuilder<(T0, T1, T2, T3, T4, T5)> {
            /// Setter for the [`host` field](Process#structfield.host).
            #[inline]
            #[allow(clippy::type_complexity)]
            pub fn host<T6>(self, value: T6) -> ProcessBuilder<(T0, T1, T2, T3, T4, T5, T6)>
            where
                T6: ::planus::WriteAsOptional<::planus::Offset<::core::primitive::str>>,
            {
                let (v0, v1, v2, v3, v4, v5) = self.0;
                ProcessBuilder((v0, v1, v2, v3, v4, v5, value))
            }

            /// Sets the [`host` field](Process#structfield.host) to null.
            #[inline]
            #[allow(clippy::type_complexity)]
            pub fn host_as_null(self) -> ProcessBuilder<(T0, T1, T2, T3, T4, T5, ())> {
                self.host(())
            }
        }

        impl<T0, T1, T2, T3, T4, T5, T6> ProcessBuilder<(T0, T1, T2, T3, T4, T5, T6)> {
            /// Setter for the [`job` field](Process#structfield.job).
            #[inline]
            #[allow(clippy::type_complexity)]
            pub fn job<T7>(self, value: T7) -> ProcessBuilder<(T0, T1, T2, T3, T4, T5, T6, T7)>
            where
                T7: ::planus::WriteAsOptional<::planus::Offset<::core::primitive::str>>,
            {
                let (v0, v1, v2, v3, v4, v5, v6) = self.0;
                ProcessBuilder((v0, v1, v2, v3, v4, v5, v6, value))
            }

            /// Sets the [`job` field](Process#structfield.job) to null.
            #[inline]
            #[allow(clippy::type_complexity)]
            pub fn job_as_null(self) -> ProcessBuilder<(T0, T1, T2, T3, T4, T5, T6, ())> {
                self.job(())
            }
        }

        impl<T0, T1, T2, T3, T4, T5, T6, T7> ProcessBuilder<(T0, T1, T2, T3, T4, T5, T6, T7)> {
            /// Finish writing the builder to get an [Offset](::planus::Offset) to a serialized [Process].
            #[inline]
            pub fn finish(self, builder: &mut ::planus::Builder) -> ::planus::Offset<Process>
            where
                Self: ::planus::WriteAsOffset<Process>,
            {
                ::planus::WriteAsOffset::prepare(&self, builder)
            }
        }

        impl<
                T0: ::planus::WriteAsDefault<u32, u32>,
                T1: ::planus::WriteAsDefault<u32, u32>,
                T2: ::planus::WriteAsDefault<i64, i64>,
                T3: ::planus::WriteAsOptional<::planus::Offset<::core::primitive::str>>,
                T4: ::planus::WriteAsDefault<i64, i64>,
                T5: ::planus::WriteAsDefault<i64, i64>,
                T6: ::planus::WriteAsOptional<::planus::Offset<::core::primitive::str>>,
                T7: ::planus::WriteAsOptional<::planus::Offset<::core::primitive::str>>,
            > ::planus::WriteAs<::planus::Offset<Process>>
            for ProcessBuilder<(T0, T1, T2, T3, T4, T5, T6, T7)>
        {
            type Prepared = ::planus::Offset<Process>;

            #[inline]
            fn prepare(&self, builder: &mut ::planus::Builder) -> ::planus::Offset<Process> {
                ::planus::WriteAsOffset::prepare(self, builder)
            }
        }

        impl<
                T0: ::planus::WriteAsDefault<u32, u32>,
                T1: ::planus::WriteAsDefault<u32, u32>,
                T2: ::planus::WriteAsDefault<i64, i64>,
                T3: ::planus::WriteAsOptional<::planus::Offset<::core::primitive::str>>,
                T4: ::planus::WriteAsDefault<i64, i64>,
                T5: ::planus::WriteAsDefault<i64, i64>,
                T6: ::planus::WriteAsOptional<::planus::Offset<::core::primitive::str>>,
                T7: ::planus::WriteAsOptional<::planus::Offset<::core::primitive::str>>,
            > ::planus::WriteAsOptional<::planus::Offset<Process>>
            for ProcessBuilder<(T0, T1, T2, T3, T4, T5, T6, T7)>
        {
            type Prepared = ::planus::Offset<Process>;

            #[inline]
            fn prepare(
                &self,
                builder: &mut ::planus::Builder,
            ) -> ::core::option::Option<::planus::Offset<Process>> {
                ::core::option::Option::Some(::planus::WriteAsOffset::prepare(self, builder))
            }
        }

        impl<
                T0: ::planus::WriteAsDefault<u32, u32>,
                T1: ::planus::WriteAsDefault<u32, u32>,
                T2: ::planus::WriteAsDefault<i64, i64>,
                T3: ::planus::WriteAsOptional<::planus::Offset<::core::primitive::str>>,
                T4: ::planus::WriteAsDefault<i64, i64>,
                T5: ::planus::WriteAsDefault<i64, i64>,
                T6: ::planus::WriteAsOptional<::planus::Offset<::core::primitive::str>>,
                T7: ::planus::WriteAsOptional<::planus::Offset<::core::primitive::str>>,
            > ::planus::WriteAsOffset<Process> for ProcessBuilder<(T0, T1, T2, T3, T4, T5, T6, T7)>
        {
            #[inline]
            fn prepare(&self, builder: &mut ::planus::Builder) -> ::planus::Offset<Process> {
                let (v0, v1, v2, v3, v4, v5, v6, v7) = &self.0;
                Process::create(builder, v0, v1, v2, v3, v4, v5, v6, v7)
            }
        }

        /// Reference to a deserialized [Process].
        #[derive(Copy, Clone)]
        pub struct ProcessRef<'a>(#[allow(dead_code)] ::planus::table_reader::Table<'a>);

        impl<'a> ProcessRef<'a> {
            /// Getter for the [`index` field](Process#structfield.index).
            #[inline]
            pub fn index(&self) -> ::planus::Result<u32> {
                ::core::result::Result::Ok(self.0.access(0, "Process", "index")?.unwrap_or(0))
            }

            /// Getter for the [`source` field](Process#structfield.source).
            #[inline]
            pub fn source(&self) -> ::planus::Result<u32> {
                ::core::result::Result::Ok(self.0.access(1, "Process", "source")?.unwrap_or(0))
            }

            /// Getter for the [`pid` field](Process#structfield.pid).
            #[inline]
            pub fn pid(&self) -> ::planus::Result<i64> {
                ::core::result::Result::Ok(self.0.access(2, "Process", "pid")?.unwrap_or(0))
            }

            /// Getter for the [`name` field](Process#structfield.name).
            #[inline]
            pub fn name(&self) -> ::planus::Result<::core::option::Option<&'a ::core::primitive::str>> {
                self.0.access(3, "Process", "name")
            }

            /// Getter for the [`rank` field](Process#structfield.rank).
            #[inline]
            pub fn rank(&self) -> ::planus::Result<i64> {
                ::core::result::Result::Ok(self.0.access(4, "Process", "rank")?.unwrap_or(-1))
            }

            /// Getter for the [`world_size` field](Process#structfield.world_size).
            #[inline]
            pub fn world_size(&self) -> ::planus::Result<i64> {
                ::core::result::Result::Ok(self.0.access(5, "Process", "world_size")?.unwrap_or(-1))
            }

            /// Getter for the [`host` field](Process#structfield.host).
            #[inline]
            pub fn host(&self) -> ::planus::Result<::core::option::Option<&'a ::core::primitive::str>> {
                self.0.access(6, "Process", "host")
            }

            /// Getter for the [`job` field](Process#structfield.job).
            #[inline]
            pub fn job(&self) -> ::planus::Result<::core::option::Option<&'a ::core::primitive::str>> {
                self.0.access(7, "Process", "job")
            }
        }

        impl<'a> ::core::fmt::Debug for ProcessRef<'a> {
            fn fmt(&self, f: &mut ::core::fmt::Formatter<'_>) -> ::core::fmt::Result {
                let mut f = f.debug_struct("ProcessRef");
                f.field("index", &self.index());
                f.field("source", &self.source());
                f.field("pid", &self.pid());
                if let ::core::option::Option::Some(field_name) = self.name().transpose() {
                    f.field("name", &field_name);
                }
                f.field("rank", &self.rank());
                f.field("world_size", &self.world_size());
                if let ::core::option::Option::Some(field_host) = self.host().transpose() {
                    f.field("host", &field_host);
                }
                if let ::core::option::Option::Some(field_job) = self.job().transpose() {
                    f.field("job", &field_job);
                }
                f.finish()
            }
        }

        impl<'a> ::core::convert::TryFrom<ProcessRef<'a>> for Process {
            type Error = ::planus::Error;

            #[allow(unreachable_code)]
            fn try_from(value: ProcessRef<'a>) -> ::planus::Result<Self> {
                ::core::result::Result::Ok(Self {
                    index: ::core::convert::TryInto::try_into(value.index()?)?,
                    source: ::core::convert::TryInto::try_into(value.source()?)?,
                    pid: ::core::convert::TryInto::try_into(value.pid()?)?,
                    name: value.name()?.map(::core::convert::Into::into),
                    rank: ::core::convert::TryInto::try_into(value.rank()?)?,
                    world_size: ::core::convert::TryInto::try_into(value.world_size()?)?,
                    host: value.host()?.map(::core::convert::Into::into),
                    job: value.job()?.map(::core::convert::Into::into),
                })
            }
        }

        impl<'a> ::planus::TableRead<'a> for ProcessRef<'a> {
            #[inline]
            fn from_buffer(
                buffer: ::planus::SliceWithStartOffset<'a>,
                offset: usize,
            ) -> ::core::result::Result<Self, ::planus::errors::ErrorKind> {
                ::core::result::Result::Ok(Self(::planus::table_reader::Table::from_buffer(buffer, offset)?))
            }
        }

        impl<'a> ::planus::VectorReadInner<'a> for ProcessRef<'a> {
            type Error = ::planus::Error;
            const STRIDE: usize = 4;

            unsafe fn from_buffer(
                buffer: ::planus::SliceWithStartOffset<'a>,
                offset: usize,
            ) -> ::planus::Result<Self> {
                ::planus::TableRead::from_buffer(buffer, offset).map_err(|error_kind| {
                    error_kind.with_error_location("[ProcessRef]", "get", buffer.offset_from_start)
                })
            }
        }

        /// # Safety
        /// The planus compiler generates implementations that initialize
        /// the bytes in `write_values`.
        unsafe impl ::planus::VectorWrite<::planus::Offset<Process>> for Process {
            type Value = ::planus::Offset<Process>;
            const STRIDE: usize = 4;
            #[inline]
            fn prepare(&self, builder: &mut ::planus::Builder) -> Self::Value {
                ::planus::WriteAs::prepare(self, builder)
            }

            #[inline]
            unsafe fn write_values(
                values: &[::planus::Offset<Process>],
                bytes: *mut ::core::mem::MaybeUninit<u8>,
                buffer_position: u32,
            ) {
                let bytes = bytes as *mut [::core::mem::MaybeUninit<u8>; 4];
                for (i, v) in ::core::iter::Iterator::enumerate(values.iter()) {
                    ::planus::WriteAsPrimitive::write(
                        v,
                        ::planus::Cursor::new(unsafe { &mut *bytes.add(i) }),
                        buffer_position - (Self::STRIDE * i) as u32,
                    );
                }
            }
        }

        impl<'a> ::planus::ReadAsRoot<'a> for ProcessRef<'a> {
            fn read_as_root(slice: &'a [u8]) -> ::planus::Result<Self> {
                ::planus::TableRead::from_buffer(
                    ::planus::SliceWithStartOffset { buffer: slice, offset_from_start: 0 },
                    0,
                )
                .map_err(|error_kind| error_kind.with_error_location("[ProcessRef]", "read_as_root", 0))
            }
        }

        /// The table `Thread` in the namespace `capture`
        ///
        /// Generated from these locations:
        /// * Table `Thread` in the file `schemas/capture.fbs:40`
        #[derive(
            Clone, Debug, PartialEq, PartialOrd, Eq, Ord, Hash, ::serde::Serialize, ::serde::Deserialize,
        )]
        pub struct Thread {
            /// The field `index` in the table `Thread`
            pub index: u32,
            /// The field `process` in the table `Thread`
            pub process: u32,
            /// The field `tid` in the table `Thread`
            pub tid: i64,
            /// The field `name` in the table `Thread`
            pub name: ::core::option::Option<::planus::alloc::string::String>,
        }

        #[allow(clippy::derivable_impls)]
        impl ::core::default::Default for Thread {
            fn default() -> Self {
                Self { index: 0, process: 0, tid: 0, name: ::core::default::Default::default() }
            }
        }

        impl Thread {
            /// Creates a [ThreadBuilder] for serializing an instance of this table.
            #[inline]
            pub fn builder() -> ThreadBuilder<()> {
                ThreadBuilder(())
            }

            #[allow(clippy::too_many_arguments)]
            pub fn create(
                builder: &mut ::planus::Builder,
                field_index: impl ::planus::WriteAsDefault<u32, u32>,
                field_process: impl ::planus::WriteAsDefault<u32, u32>,
                field_tid: impl ::planus::WriteAsDefault<i64, i64>,
                field_name: impl ::planus::WriteAsOptional<::planus::Offset<::core::primitive::str>>,
            ) -> ::planus::Offset<Self> {
                let prepared_index = field_index.prepare(builder, &0);
                let prepared_process = field_process.prepare(builder, &0);
                let prepared_tid = field_tid.prepare(builder, &0);
                let prepared_name = field_name.prepare(builder);

                let mut table_writer: ::planus::table_writer::TableWriter<12> =
                    ::core::default::Default::default();
                if prepared_tid.is_some() {
                    table_writer.write_entry::<i64>(2);
                }
                if prepared_index.is_some() {
                    table_writer.write_entry::<u32>(0);
                }
                if prepared_process.is_some() {
                    table_writer.write_entry::<u32>(1);
                }
                if prepared_name.is_some() {
                    table_writer.write_entry::<::planus::Offset<str>>(3);
                }

                unsafe {
                    table_writer.finish(builder, |object_writer| {
                        if let ::core::option::Option::Some(prepared_tid) = prepared_tid {
                            object_writer.write::<_, _, 8>(&prepared_tid);
                        }
                        if let ::core::option::Option::Some(prepared_index) = prepared_index {
                            object_writer.write::<_, _, 4>(&prepared_index);
                        }
                        if let ::core::option::Option::Some(prepared_process) = prepared_process {
                            object_writer.write::<_, _, 4>(&prepared_process);
                        }
                        if let ::core::option::Option::Some(prepared_name) = prepared_name {
                            object_writer.write::<_, _, 4>(&prepared_name);
                        }
                    });
                }
                builder.current_offset()
            }
        }

        impl ::planus::WriteAs<::planus::Offset<Thread>> for Thread {
            type Prepared = ::planus::Offset<Self>;

            #[inline]
            fn prepare(&self, builder: &mut ::planus::Builder) -> ::planus::Offset<Thread> {
                ::planus::WriteAsOffset::prepare(self, builder)
            }
        }

        impl ::planus::WriteAsOptional<::planus::Offset<Thread>> for Thread {
            type Prepared = ::planus::Offset<Self>;

            #[inline]
            fn prepare(
                &self,
                builder: &mut ::planus::Builder,
            ) -> ::core::option::Option<::planus::Offset<Thread>> {
                ::core::option::Option::Some(::planus::WriteAsOffset::prepare(self, builder))
            }
        }

        impl ::planus::WriteAsOffset<Thread> for Thread {
            #[inline]
            fn prepare(&self, builder: &mut ::planus::Builder) -> ::planus::Offset<Thread> {
                Thread::create(builder, self.index, self.process, self.tid, &self.name)
            }
        }

        /// Builder for serializing an instance of the [Thread] type.
        ///
        /// Can be created using the [Thread::builder] method.
        #[derive(Debug)]
        #[must_use]
        pub struct ThreadBuilder<State>(State);

        impl ThreadBuilder<()> {
            /// Setter for the [`index` field](Thread#structfield.index).
            #[inline]
            #[allow(clippy::type_complexity)]
            pub fn index<T0>(self, value: T0) -> ThreadBuilder<(T0,)>
            where
                T0: ::planus::WriteAsDefault<u32, u32>,
            {
                ThreadBuilder((value,))
            }

            /// Sets the [`index` field](Thread#structfield.index) to the default value.
            #[inline]
            #[allow(clippy::type_complexity)]
            pub fn index_as_default(self) -> ThreadBuilder<(::planus::DefaultValue,)> {
                self.index(::planus::DefaultValue)
            }
        }

        impl<T0> ThreadBuilder<(T0,)> {
            /// Setter for the [`process` field](Thread#structfield.process).
            #[inline]
            #[allow(clippy::type_complexity)]
            pub fn process<T1>(self, value: T1) -> ThreadBuilder<(T0, T1)>
            where
                T1: ::planus::WriteAsDefault<u32, u32>,
            {
                let (v0,) = self.0;
                ThreadBuilder((v0, value))
            }

            /// Sets the [`process` field](Thread#structfield.process) to the default value.
            #[inline]
            #[allow(clippy::type_complexity)]
            pub fn process_as_default(self) -> ThreadBuilder<(T0, ::planus::DefaultValue)> {
                self.process(::planus::DefaultValue)
            }
        }

        impl<T0, T1> ThreadBuilder<(T0, T1)> {
            /// Setter for the [`tid` field](Thread#structfield.tid).
            #[inline]
            #[allow(clippy::type_complexity)]
            pub fn tid<T2>(self, value: T2) -> ThreadBuilder<(T0, T1, T2)>
            where
                T2: ::planus::WriteAsDefault<i64, i64>,
            {
                let (v0, v1) = self.0;
                ThreadBuilder((v0, v1, value))
            }

            /// Sets the [`tid` field](Thread#structfield.tid) to the default value.
            #[inline]
            #[allow(clippy::type_complexity)]
            pub fn tid_as_default(self) -> ThreadBuilder<(T0, T1, ::planus::DefaultValue)> {
                self.tid(::planus::DefaultValue)
            }
        }

        impl<T0, T1, T2> ThreadBuilder<(T0, T1, T2)> {
            /// Setter for the [`name` field](Thread#structfield.name).
            #[inline]
            #[allow(clippy::type_complexity)]
            pub fn name<T3>(self, value: T3) -> ThreadBuilder<(T0, T1, T2, T3)>
            where
                T3: ::planus::WriteAsOptional<::planus::Offset<::core::primitive::str>>,
            {
                let (v0, v1, v2) = self.0;
                ThreadBuilder((v0, v1, v2, value))
            }

            /// Sets the [`name` field](Thread#structfield.name) to null.
            #[inline]
            #[allow(clippy::type_complexity)]
            pub fn name_as_null(self) -> ThreadBuilder<(T0, T1, T2, ())> {
                self.name(())
            }
        }

        impl<T0, T1, T2, T3> ThreadBuilder<(T0, T1, T2, T3)> {
            /// Finish writing the builder to get an [Offset](::planus::Offset) to a serialized [Thread].
            #[inline]
            pub fn finish(self, builder: &mut ::planus::Builder) -> ::planus::Offset<Thread>
            where
                Self: ::planus::WriteAsOffset<Thread>,
            {
                ::planus::WriteAsOffset::prepare(&self, builder)
            }
        }

        impl<
                T0: ::planus::WriteAsDefault<u32, u32>,
                T1: ::planus::WriteAsDefault<u32, u32>,
                T2: ::planus::WriteAsDefault<i64, i64>,
                T3: ::planus::WriteAsOptional<::planus::Offset<::core::primitive::str>>,
            > ::planus::WriteAs<::planus::Offset<Thread>> for ThreadBuilder<(T0, T1, T2, T3)>
        {
            type Prepared = ::planus::Offset<Thread>;

            #[inline]
            fn prepare(&self, builder: &mut ::planus::Builder) -> ::planus::Offset<Thread> {
                ::planus::WriteAsOffset::prepare(self, builder)
            }
        }

        impl<
                T0: ::planus::WriteAsDefault<u32, u32>,
                T1: ::planus::WriteAsDefault<u32, u32>,
                T2: ::planus::WriteAsDefault<i64, i64>,
                T3: ::planus::WriteAsOptional<::planus::Offset<::core::primitive::str>>,
            > ::planus::WriteAsOptional<::planus::Offset<Thread>> for ThreadBuilder<(T0, T1, T2, T3)>
        {
            type Prepared = ::planus::Offset<Thread>;

            #[inline]
            fn prepare(
                &self,
                builder: &mut ::planus::Builder,
            ) -> ::core::option::Option<::planus::Offset<Thread>> {
                ::core::option::Option::Some(::planus::WriteAsOffset::prepare(self, builder))
            }
        }

        impl<
                T0: ::planus::WriteAsDefault<u32, u32>,
                T1: ::planus::WriteAsDefault<u32, u32>,
                T2: ::planus::WriteAsDefault<i64, i64>,
                T3: ::planus::WriteAsOptional<::planus::Offset<::core::primitive::str>>,
            > ::planus::WriteAsOffset<Thread> for ThreadBuilder<(T0, T1, T2, T3)>
        {
            #[inline]
            fn prepare(&self, builder: &mut ::planus::Builder) -> ::planus::Offset<Thread> {
                let (v0, v1, v2, v3) = &self.0;
                Thread::create(builder, v0, v1, v2, v3)
            }
        }

        /// Reference to a deserialized [Thread].
        #[derive(Copy, Clone)]
        pub struct ThreadRef<'a>(#[allow(dead_code)] ::planus::table_reader::Table<'a>);

        impl<'a> ThreadRef<'a> {
            /// Getter for the [`index` field](Thread#structfield.index).
            #[inline]
            pub fn index(&self) -> ::planus::Result<u32> {
                ::core::result::Result::Ok(self.0.access(0, "Thread", "index")?.unwrap_or(0))
            }

            /// Getter for the [`process` field](Thread#structfield.process).
            #[inline]
            pub fn process(&self) -> ::planus::Result<u32> {
                ::core::result::Result::Ok(self.0.access(1, "Thread", "process")?.unwrap_or(0))
            }

            /// Getter for the [`tid` field](Thread#structfield.tid).
            #[inline]
            pub fn tid(&self) -> ::planus::Result<i64> {
                ::core::result::Result::Ok(self.0.access(2, "Thread", "tid")?.unwrap_or(0))
            }

            /// Getter for the [`name` field](Thread#structfield.name).
            #[inline]
            pub fn name(&self) -> ::planus::Result<::core::option::Option<&'a ::core::primitive::str>> {
                self.0.access(3, "Thread", "name")
            }
        }

        impl<'a> ::core::fmt::Debug for ThreadRef<'a> {
            fn fmt(&self, f: &mut ::core::fmt::Formatter<'_>) -> ::core::fmt::Result {
                let mut f = f.debug_struct("ThreadRef");
                f.field("index", &self.index());
                f.field("process", &self.process());
                f.field("tid", &self.tid());
                if let ::core::option::Option::Some(field_name) = self.name().transpose() {
                    f.field("name", &field_name);
                }
                f.finish()
            }
        }

        impl<'a> ::core::convert::TryFrom<ThreadRef<'a>> for Thread {
            type Error = ::planus::Error;

            #[allow(unreachable_code)]
            fn try_from(value: ThreadRef<'a>) -> ::planus::Result<Self> {
                ::core::result::Result::Ok(Self {
                    index: ::core::convert::TryInto::try_into(value.index()?)?,
                    process: ::core::convert::TryInto::try_into(value.process()?)?,
                    tid: ::core::convert::TryInto::try_into(value.tid()?)?,
                    name: value.name()?.map(::core::convert::Into::into),
                })
            }
        }

        impl<'a> ::planus::TableRead<'a> for ThreadRef<'a> {
            #[inline]
            fn from_buffer(
                buffer: ::planus::SliceWithStartOffset<'a>,
                offset: usize,
            ) -> ::core::result::Result<Self, ::planus::errors::ErrorKind> {
                ::core::result::Result::Ok(Self(::planus::table_reader::Table::from_buffer(buffer, offset)?))
            }
        }

        impl<'a> ::planus::VectorReadInner<'a> for ThreadRef<'a> {
            type Error = ::planus::Error;
            const STRIDE: usize = 4;

            unsafe fn from_buffer(
                buffer: ::planus::SliceWithStartOffset<'a>,
                offset: usize,
            ) -> ::planus::Result<Self> {
                ::planus::TableRead::from_buffer(buffer, offset).map_err(|error_kind| {
                    error_kind.with_error_location("[ThreadRef]", "get", buffer.offset_from_start)
                })
            }
        }

        /// # Safety
        /// The planus compiler generates implementations that initialize
        /// the bytes in `write_values`.
        unsafe impl ::planus::VectorWrite<::planus::Offset<Thread>> for Thread {
            type Value = ::planus::Offset<Thread>;
            const STRIDE: usize = 4;
            #[inline]
            fn prepare(&self, builder: &mut ::planus::Builder) -> Self::Value {
                ::planus::WriteAs::prepare(self, builder)
            }

            #[inline]
            unsafe fn write_values(
                values: &[::planus::Offset<Thread>],
                bytes: *mut ::core::mem::MaybeUninit<u8>,
                buffer_position: u32,
            ) {
                let bytes = bytes as *mut [::core::mem::MaybeUninit<u8>; 4];
                for (i, v) in ::core::iter::Iterator::enumerate(values.iter()) {
                    ::planus::WriteAsPrimitive::write(
                        v,
                        ::planus::Cursor::new(unsafe { &mut *bytes.add(i) }),
                        buffer_position - (Self::STRIDE * i) as u32,
                    );
                }
            }
        }

        impl<'a> ::planus::ReadAsRoot<'a> for ThreadRef<'a> {
            fn read_as_root(slice: &'a [u8]) -> ::planus::Result<Self> {
                ::planus::TableRead::from_buffer(
                    ::planus::SliceWithStartOffset { buffer: slice, offset_from_start: 0 },
                    0,
                )
                .map_err(|error_kind| error_kind.with_error_location("[ThreadRef]", "read_as_root", 0))
            }
        }

        /// The table `Device` in the namespace `capture`
        ///
        /// Generated from these locations:
        /// * Table `Device` in the file `schemas/capture.fbs:42`
        #[derive(
            Clone, Debug, PartialEq, PartialOrd, Eq, Ord, Hash, ::serde::Serialize, ::serde::Deserialize,
        )]
        pub struct Device {
            /// The field `index` in the table `Device`
            pub index: u32,
            /// The field `source` in the table `Device`
            pub source: u32,
            /// The field `kind` in the table `Device`
            pub kind: u8,
            /// The field `id` in the table `Device`
            pub id: ::core::option::Option<::planus::alloc::string::String>,
            /// The field `ordinal` in the table `Device`
            pub ordinal: u32,
            /// The field `model` in the table `Device`
            pub model: ::core::option::Option<::planus::alloc::string::String>,
            /// The field `processes` in the table `Device`
            pub processes: ::core::option::Option<::planus::alloc::vec::Vec<u32>>,
        }

        #[allow(clippy::derivable_impls)]
        impl ::core::default::Default for Device {
            fn default() -> Self {
                Self {
                    index: 0,
                    source: 0,
                    kind: 0,
                    id: ::core::default::Default::default(),
                    ordinal: 0,
                    model: ::core::default::Default::default(),
                    processes: ::core::default::Default::default(),
                }
            }
        }

        impl Device {
            /// Creates a [DeviceBuilder] for serializing an instance of this table.
            #[inline]
            pub fn builder() -> DeviceBuilder<()> {
                DeviceBuilder(())
            }

            #[allow(clippy::too_many_arguments)]
            pub fn create(
                builder: &mut ::planus::Builder,
                field_index: impl ::planus::WriteAsDefault<u32, u32>,
                field_source: impl ::planus::WriteAsDefault<u32, u32>,
                field_kind: impl ::planus::WriteAsDefault<u8, u8>,
                field_id: impl ::planus::WriteAsOptional<::planus::Offset<::core::primitive::str>>,
                field_ordinal: impl ::planus::WriteAsDefault<u32, u32>,
                field_model: impl ::planus::WriteAsOptional<::planus::Offset<::core::primitive::str>>,
                field_processes: impl ::planus::WriteAsOptional<::planus::Offset<[u32]>>,
            ) -> ::planus::Offset<Self> {
                let prepared_index = field_index.prepare(builder, &0);
                let prepared_source = field_source.prepare(builder, &0);
                let prepared_kind = field_kind.prepare(builder, &0);
                let prepared_id = field_id.prepare(builder);
                let prepared_ordinal = field_ordinal.prepare(builder, &0);
                let prepared_model = field_model.prepare(builder);
                let prepared_processes = field_processes.prepare(builder);

                let mut table_writer: ::planus::table_writer::TableWriter<18> =
                    ::core::default::Default::default();
                if prepared_index.is_some() {
                    table_writer.write_entry::<u32>(0);
                }
                if prepared_source.is_some() {
                    table_writer.write_entry::<u32>(1);
                }
                if prepared_id.is_some() {
                    table_writer.write_entry::<::planus::Offset<str>>(3);
                }
                if prepared_ordinal.is_some() {
                    table_writer.write_entry::<u32>(4);
                }
                if prepared_model.is_some() {
                    table_writer.write_entry::<::planus::Offset<str>>(5);
                }
                if prepared_processes.is_some() {
                    table_writer.write_entry::<::planus::Offset<[u32]>>(6);
                }
                if prepared_kind.is_some() {
                    table_writer.write_entry::<u8>(2);
                }

                unsafe {
                    table_writer.finish(builder, |object_writer| {
                        if let ::core::option::Option::Some(prepared_index) = prepared_index {
                            object_writer.write::<_, _, 4>(&prepared_index);
                        }
                        if let ::core::option::Option::Some(prepared_source) = prepared_source {
                            object_writer.write::<_, _, 4>(&prepared_source);
                        }
                        if let ::core::option::Option::Some(prepared_id) = prepared_id {
                            object_writer.write::<_, _, 4>(&prepared_id);
                        }
                        if let ::core::option::Option::Some(prepared_ordinal) = prepared_ordinal {
                            object_writer.write::<_, _, 4>(&prepared_ordinal);
                        }
                        if let ::core::option::Option::Some(prepared_model) = prepared_model {
                            object_writer.write::<_, _, 4>(&prepared_model);
                        }
                        if let ::core::option::Option::Some(prepared_processes) = prepared_processes {
                            object_writer.write::<_, _, 4>(&prepared_processes);
                        }
                        if let ::core::option::Option::Some(prepared_kind) = prepared_kind {
                            object_writer.write::<_, _, 1>(&prepared_kind);
                        }
                    });
                }
                builder.current_offset()
            }
        }

        impl ::planus::WriteAs<::planus::Offset<Device>> for Device {
            type Prepared = ::planus::Offset<Self>;

            #[inline]
            fn prepare(&self, builder: &mut ::planus::Builder) -> ::planus::Offset<Device> {
                ::planus::WriteAsOffset::prepare(self, builder)
            }
        }

        impl ::planus::WriteAsOptional<::planus::Offset<Device>> for Device {
            type Prepared = ::planus::Offset<Self>;

            #[inline]
            fn prepare(
                &self,
                builder: &mut ::planus::Builder,
            ) -> ::core::option::Option<::planus::Offset<Device>> {
                ::core::option::Option::Some(::planus::WriteAsOffset::prepare(self, builder))
            }
        }

        impl ::planus::WriteAsOffset<Device> for Device {
            #[inline]
            fn prepare(&self, builder: &mut ::planus::Builder) -> ::planus::Offset<Device> {
                Device::create(
                    builder,
                    self.index,
                    self.source,
                    self.kind,
                    &self.id,
                    self.ordinal,
                    &self.model,
                    &self.processes,
                )
            }
        }

        /// Builder for serializing an instance of the [Device] type.
        ///
        /// Can be created using the [Device::builder] method.
        #[derive(Debug)]
        #[must_use]
        pub struct DeviceBuilder<State>(State);

        impl DeviceBuilder<()> {
            /// Setter for the [`index` field](Device#structfield.index).
            #[inline]
            #[allow(clippy::type_complexity)]
            pub fn index<T0>(self, value: T0) -> DeviceBuilder<(T0,)>
            where
                T0: ::planus::WriteAsDefault<u32, u32>,
            {
                DeviceBuilder((value,))
            }

            /// Sets the [`index` field](Device#structfield.index) to the default value.
            #[inline]
            #[allow(clippy::type_complexity)]
            pub fn index_as_default(self) -> DeviceBuilder<(::planus::DefaultValue,)> {
                self.index(::planus::DefaultValue)
            }
        }

        impl<T0> DeviceBuilder<(T0,)> {
            /// Setter for the [`source` field](Device#structfield.source).
            #[inline]
            #[allow(clippy::type_complexity)]
            pub fn source<T1>(self, value: T1) -> DeviceBuilder<(T0, T1)>
            where
                T1: ::planus::WriteAsDefault<u32, u32>,
            {
                let (v0,) = self.0;
                DeviceBuilder((v0, value))
            }

            /// Sets the [`source` field](Device#structfield.source) to the default value.
            #[inline]
            #[allow(clippy::type_complexity)]
            pub fn source_as_default(self) -> DeviceBuilder<(T0, ::planus::DefaultValue)> {
                self.source(::planus::DefaultValue)
            }
        }

        impl<T0, T1> DeviceBuilder<(T0, T1)> {
            /// Setter for the [`kind` field](Device#structfield.kind).
            #[inline]
            #[allow(clippy::type_complexity)]
            pub fn kind<T2>(self, value: T2) -> DeviceBuilder<(T0, T1, T2)>
            where
                T2: ::planus::WriteAsDefault<u8, u8>,
            {
                let (v0, v1) = self.0;
                DeviceBuilder((v0, v1, value))
            }

            /// Sets the [`kind` field](Device#structfield.kind) to the default value.
            #[inline]
            #[allow(clippy::type_complexity)]
            pub fn kind_as_default(self) -> DeviceBuilder<(T0, T1, ::planus::DefaultValue)> {
                self.kind(::planus::DefaultValue)
            }
        }

        impl<T0, T1, T2> DeviceBuilder<(T0, T1, T2)> {
            /// Setter for the [`id` field](Device#structfield.id).
            #[inline]
            #[allow(clippy::type_complexity)]
            pub fn id<T3>(self, value: T3) -> DeviceBuilder<(T0, T1, T2, T3)>
            where
                T3: ::planus::WriteAsOptional<::planus::Offset<::core::primitive::str>>,
            {
                let (v0, v1, v2) = self.0;
                DeviceBuilder((v0, v1, v2, value))
            }

            /// Sets the [`id` field](Device#structfield.id) to null.
            #[inline]
            #[allow(clippy::type_complexity)]
            pub fn id_as_null(self) -> DeviceBuilder<(T0, T1, T2, ())> {
                self.id(())
            }
        }

        impl<T0, T1, T2, T3> DeviceBuilder<(T0, T1, T2, T3)> {
            /// Setter for the [`ordinal` field](Device#structfield.ordinal).
            #[inline]
            #[allow(clippy::type_complexity)]
            pub fn ordinal<T4>(self, value: T4) -> DeviceBuilder<(T0, T1, T2, T3, T4)>
            where
                T4: ::planus::WriteAsDefault<u32, u32>,
            {
                let (v0, v1, v2, v3) = self.0;
                DeviceBuilder((v0, v1, v2, v3, value))
            }

            /// Sets the [`ordinal` field](Device#structfield.ordinal) to the default value.
            #[inline]
            #[allow(clippy::type_complexity)]
            pub fn ordinal_as_default(self) -> DeviceBuilder<(T0, T1, T2, T3, ::planus::DefaultValue)> {
                self.ordinal(::planus::DefaultValue)
            }
        }

        impl<T0, T1, T2, T3, T4> DeviceBuilder<(T0, T1, T2, T3, T4)> {
            /// Setter for the [`model` field](Device#structfield.model).
            #[inline]
            #[allow(clippy::type_complexity)]
            pub fn model<T5>(self, value: T5) -> DeviceBuilder<(T0, T1, T2, T3, T4, T5)>
            where
                T5: ::planus::WriteAsOptional<::planus::Offset<::core::primitive::str>>,
            {
                let (v0, v1, v2, v3, v4) = self.0;
                DeviceBuilder((v0, v1, v2, v3, v4, value))
            }

            /// Sets the [`model` field](Device#structfield.model) to null.
            #[inline]
            #[allow(clippy::type_complexity)]
            pub fn model_as_null(self) -> DeviceBuilder<(T0, T1, T2, T3, T4, ())> {
                self.model(())
            }
        }

        impl<T0, T1, T2, T3, T4, T5> DeviceBuilder<(T0, T1, T2, T3, T4, T5)> {
            /// Setter for the [`processes` field](Device#structfield.processes).
            #[inline]
            #[allow(clippy::type_complexity)]
            pub fn processes<T6>(self, value: T6) -> DeviceBuilder<(T0, T1, T2, T3, T4, T5, T6)>
            where
                T6: ::planus::WriteAsOptional<::planus::Offset<[u32]>>,
            {
                let (v0, v1, v2, v3, v4, v5) = self.0;
                DeviceBuilder((v0, v1, v2, v3, v4, v5, value))
            }

            /// Sets the [`processes` field](Device#structfield.processes) to null.
            #[inline]
            #[allow(clippy::type_complexity)]
            pub fn processes_as_null(self) -> DeviceBuilder<(T0, T1, T2, T3, T4, T5, ())> {
                self.processes(())
            }
        }

        impl<T0, T1, T2, T3, T4, T5, T6> DeviceBuilder<(T0, T1, T2, T3, T4, T5, T6)> {
            /// Finish writing the builder to get an [Offset](::planus::Offset) to a serialized [Device].
            #[inline]
            pub fn finish(self, builder: &mut ::planus::Builder) -> ::planus::Offset<Device>
            where
                Self: ::planus::WriteAsOffset<Device>,
            {
                ::planus::WriteAsOffset::prepare(&self, builder)
            }
        }

        impl<
                T0: ::planus::WriteAsDefault<u32, u32>,
                T1: ::planus::WriteAsDefault<u32, u32>,
                T2: ::planus::WriteAsDefault<u8, u8>,
                T3: ::planus::WriteAsOptional<::planus::Offset<::core::primitive::str>>,
                T4: ::planus::WriteAsDefault<u32, u32>,
                T5: ::planus::WriteAsOptional<::planus::Offset<::core::primitive::str>>,
                T6: ::planus::WriteAsOptional<::planus::Offset<[u32]>>,
            > ::planus::WriteAs<::planus::Offset<Device>> for DeviceBuilder<(T0, T1, T2, T3, T4, T5, T6)>
        {
            type Prepared = ::planus::Offset<Device>;

            #[inline]
            fn prepare(&self, builder: &mut ::planus::Builder) -> ::planus::Offset<Device> {
                ::planus::WriteAsOffset::prepare(self, builder)
            }
        }

        impl<
                T0: ::planus::WriteAsDefault<u32, u32>,
                T1: ::planus::WriteAsDefault<u32, u32>,
                T2: ::planus::WriteAsDefault<u8, u8>,
                T3: ::planus::WriteAsOptional<::planus::Offset<::core::primitive::str>>,
                T4: ::planus::WriteAsDefault<u32, u32>,
                T5: ::planus::WriteAsOptional<::planus::Offset<::core::primitive::str>>,
                T6: ::planus::WriteAsOptional<::planus::Offset<[u32]>>,
            > ::planus::WriteAsOptional<::planus::Offset<Device>>
            for DeviceBuilder<(T0, T1, T2, T3, T4, T5, T6)>
        {
            type Prepared = ::planus::Offset<Device>;

            #[inline]
            fn prepare(
                &self,
                builder: &mut ::planus::Builder,
            ) -> ::core::option::Option<::planus::Offset<Device>> {
                ::core::option::Option::Some(::planus::WriteAsOffset::prepare(self, builder))
            }
        }

        impl<
                T0: ::planus::WriteAsDefault<u32, u32>,
                T1: ::planus::WriteAsDefault<u32, u32>,
                T2: ::planus::WriteAsDefault<u8, u8>,
                T3: ::planus::WriteAsOptional<::planus::Offset<::core::primitive::str>>,
                T4: ::planus::WriteAsDefault<u32, u32>,
                T5: ::planus::WriteAsOptional<::planus::Offset<::core::primitive::str>>,
                T6: ::planus::WriteAsOptional<::planus::Offset<[u32]>>,
            > ::planus::WriteAsOffset<Device> for DeviceBuilder<(T0, T1, T2, T3, T4, T5, T6)>
        {
            #[inline]
            fn prepare(&self, builder: &mut ::planus::Builder) -> ::planus::Offset<Device> {
                let (v0, v1, v2, v3, v4, v5, v6) = &self.0;
                Device::create(builder, v0, v1, v2, v3, v4, v5, v6)
            }
        }

        /// Reference to a deserialized [Device].
        #[derive(Copy, Clone)]
        pub struct DeviceRef<'a>(#[allow(dead_code)] ::planus::table_reader::Table<'a>);

        impl<'a> DeviceRef<'a> {
            /// Getter for the [`index` field](Device#structfield.index).
            #[inline]
            pub fn index(&self) -> ::planus::Result<u32> {
                ::core::result::Result::Ok(self.0.access(0, "Device", "index")?.unwrap_or(0))
            }

            /// Getter for the [`source` field](Device#structfield.source).
            #[inline]
            pub fn source(&self) -> ::planus::Result<u32> {
                ::core::result::Result::Ok(self.0.access(1, "Device", "source")?.unwrap_or(0))
            }

            /// Getter for the [`kind` field](Device#structfield.kind).
            #[inline]
            pub fn kind(&self) -> ::planus::Result<u8> {
                ::core::result::Result::Ok(self.0.access(2, "Device", "kind")?.unwrap_or(0))
            }

            /// Getter for the [`id` field](Device#structfield.id).
            #[inline]
            pub fn id(&self) -> ::planus::Result<::core::option::Option<&'a ::core::primitive::str>> {
                self.0.access(3, "Device", "id")
            }

            /// Getter for the [`ordinal` field](Device#structfield.ordinal).
            #[inline]
            pub fn ordinal(&self) -> ::planus::Result<u32> {
                ::core::result::Result::Ok(self.0.access(4, "Device", "ordinal")?.unwrap_or(0))
            }

            /// Getter for the [`model` field](Device#structfield.model).
            #[inline]
            pub fn model(&self) -> ::planus::Result<::core::option::Option<&'a ::core::primitive::str>> {
                self.0.access(5, "Device", "model")
            }

            /// Getter for the [`processes` field](Device#structfield.processes).
            #[inline]
            pub fn processes(&self) -> ::planus::Result<::core::option::Option<::planus::Vector<'a, u32>>> {
                self.0.access(6, "Device", "processes")
            }
        }

        impl<'a> ::core::fmt::Debug for DeviceRef<'a> {
            fn fmt(&self, f: &mut ::core::fmt::Formatter<'_>) -> ::core::fmt::Result {
                let mut f = f.debug_struct("DeviceRef");
                f.field("index", &self.index());
                f.field("source", &self.source());
                f.field("kind", &self.kind());
                if let ::core::option::Option::Some(field_id) = self.id().transpose() {
                    f.field("id", &field_id);
                }
                f.field("ordinal", &self.ordinal());
                if let ::core::option::Option::Some(field_model) = self.model().transpose() {
                    f.field("model", &field_model);
                }
                if let ::core::option::Option::Some(field_processes) = self.processes().transpose() {
                    f.field("processes", &field_processes);
                }
                f.finish()
            }
        }

        impl<'a> ::core::convert::TryFrom<DeviceRef<'a>> for Device {
            type Error = ::planus::Error;

            #[allow(unreachable_code)]
            fn try_from(value: DeviceRef<'a>) -> ::planus::Result<Self> {
                ::core::result::Result::Ok(Self {
                    index: ::core::convert::TryInto::try_into(value.index()?)?,
                    source: ::core::convert::TryInto::try_into(value.source()?)?,
                    kind: ::core::convert::TryInto::try_into(value.kind()?)?,
                    id: value.id()?.map(::core::convert::Into::into),
                    ordinal: ::core::convert::TryInto::try_into(value.ordinal()?)?,
                    model: value.model()?.map(::core::convert::Into::into),
                    processes: if let ::core::option::Option::Some(processes) = value.processes()? {
                        ::core::option::Option::Some(processes.to_vec()?)
                    } else {
                        ::core::option::Option::None
                    },
                })
            }
        }

        impl<'a> ::planus::TableRead<'a> for DeviceRef<'a> {
            #[inline]
            fn from_buffer(
                buffer: ::planus::SliceWithStartOffset<'a>,
                offset: usize,
            ) -> ::core::result::Result<Self, ::planus::errors::ErrorKind> {
                ::core::result::Result::Ok(Self(::planus::table_reader::Table::from_buffer(buffer, offset)?))
            }
        }

        impl<'a> ::planus::VectorReadInner<'a> for DeviceRef<'a> {
            type Error = ::planus::Error;
            const STRIDE: usize = 4;

            unsafe fn from_buffer(
                buffer: ::planus::SliceWithStartOffset<'a>,
                offset: usize,
            ) -> ::planus::Result<Self> {
                ::planus::TableRead::from_buffer(buffer, offset).map_err(|error_kind| {
                    error_kind.with_error_location("[DeviceRef]", "get", buffer.offset_from_start)
                })
            }
        }

        /// # Safety
        /// The planus compiler generates implementations that initialize
        /// the bytes in `write_values`.
        unsafe impl ::planus::VectorWrite<::planus::Offset<Device>> for Device {
            type Value = ::planus::Offset<Device>;
            const STRIDE: usize = 4;
            #[inline]
            fn prepare(&self, builder: &mut ::planus::Builder) -> Self::Value {
                ::planus::WriteAs::prepare(self, builder)
            }

            #[inline]
            unsafe fn write_values(
                values: &[::planus::Offset<Device>],
                bytes: *mut ::core::mem::MaybeUninit<u8>,
                buffer_position: u32,
            ) {
                let bytes = bytes as *mut [::core::mem::MaybeUninit<u8>; 4];
                for (i, v) in ::core::iter::Iterator::enumerate(values.iter()) {
                    ::planus::WriteAsPrimitive::write(
                        v,
                        ::planus::Cursor::new(unsafe { &mut *bytes.add(i) }),
                        buffer_position - (Self::STRIDE * i) as u32,
                    );
                }
            }
        }

        impl<'a> ::planus::ReadAsRoot<'a> for DeviceRef<'a> {
            fn read_as_root(slice: &'a [u8]) -> ::planus::Result<Self> {
                ::planus::TableRead::from_buffer(
                    ::planus::SliceWithStartOffset { buffer: slice, offset_from_start: 0 },
                    0,
                )
                .map_err(|error_kind| error_kind.with_error_location("[DeviceRef]", "read_as_root", 0))
            }
        }

        /// The table `StackNode` in the namespace `capture`
        ///
        /// Generated from these locations:
        /// * Table `StackNode` in the file `schemas/capture.fbs:46`
        #[derive(
            Clone, Debug, PartialEq, PartialOrd, Eq, Ord, Hash, ::serde::Serialize, ::serde::Deserialize,
        )]
        pub struct StackNode {
            /// The field `parent` in the table `StackNode`
            pub parent: u32,
            /// The field `frame` in the table `StackNode`
            pub frame: u32,
        }

        #[allow(clippy::derivable_impls)]
        impl ::core::default::Default for StackNode {
            fn default() -> Self {
                Self { parent: 0, frame: 0 }
            }
        }

        impl StackNode {
            /// Creates a [StackNodeBuilder] for serializing an instance of this table.
            #[inline]
            pub fn builder() -> StackNodeBuilder<()> {
                StackNodeBuilder(())
            }

            #[allow(clippy::too_many_arguments)]
            pub fn create(
                builder: &mut ::planus::Builder,
                field_parent: impl ::planus::WriteAsDefault<u32, u32>,
                field_frame: impl ::planus::WriteAsDefault<u32, u32>,
            ) -> ::planus::Offset<Self> {
                let prepared_parent = field_parent.prepare(builder, &0);
                let prepared_frame = field_frame.prepare(builder, &0);

                let mut table_writer: ::planus::table_writer::TableWriter<8> =
                    ::core::default::Default::default();
                if prepared_parent.is_some() {
                    table_writer.write_entry::<u32>(0);
                }
                if prepared_frame.is_some() {
                    table_writer.write_entry::<u32>(1);
                }

                unsafe {
                    table_writer.finish(builder, |object_writer| {
                        if let ::core::option::Option::Some(prepared_parent) = prepared_parent {
                            object_writer.write::<_, _, 4>(&prepared_parent);
                        }
                        if let ::core::option::Option::Some(prepared_frame) = prepared_frame {
                            object_writer.write::<_, _, 4>(&prepared_frame);
                        }
                    });
                }
                builder.current_offset()
            }
        }

        impl ::planus::WriteAs<::planus::Offset<StackNode>> for StackNode {
            type Prepared = ::planus::Offset<Self>;

            #[inline]
            fn prepare(&self, builder: &mut ::planus::Builder) -> ::planus::Offset<StackNode> {
                ::planus::WriteAsOffset::prepare(self, builder)
            }
        }

        impl ::planus::WriteAsOptional<::planus::Offset<StackNode>> for StackNode {
            type Prepared = ::planus::Offset<Self>;

            #[inline]
            fn prepare(
                &self,
                builder: &mut ::planus::Builder,
            ) -> ::core::option::Option<::planus::Offset<StackNode>> {
                ::core::option::Option::Some(::planus::WriteAsOffset::prepare(self, builder))
            }
        }

        impl ::planus::WriteAsOffset<StackNode> for StackNode {
            #[inline]
            fn prepare(&self, builder: &mut ::planus::Builder) -> ::planus::Offset<StackNode> {
                StackNode::create(builder, self.parent, self.frame)
            }
        }

        /// Builder for serializing an instance of the [StackNode] type.
        ///
        /// Can be created using the [StackNode::builder] method.
        #[derive(Debug)]
        #[must_use]
        pub struct StackNodeBuilder<State>(State);

        impl StackNodeBuilder<()> {
            /// Setter for the [`parent` field](StackNode#structfield.parent).
            #[inline]
            #[allow(clippy::type_complexity)]
            pub fn parent<T0>(self, value: T0) -> StackNodeBuilder<(T0,)>
            where
                T0: ::planus::WriteAsDefault<u32, u32>,
            {
                StackNodeBuilder((value,))
            }

            /// Sets the [`parent` field](StackNode#structfield.parent) to the default value.
            #[inline]
            #[allow(clippy::type_complexity)]
            pub fn parent_as_default(self) -> StackNodeBuilder<(::planus::DefaultValue,)> {
                self.parent(::planus::DefaultValue)
            }
        }

        impl<T0> StackNodeBuilder<(T0,)> {
            /// Setter for the [`frame` field](StackNode#structfield.frame).
            #[inline]
            #[allow(clippy::type_complexity)]
            pub fn frame<T1>(self, value: T1) -> StackNodeBuilder<(T0, T1)>
            where
                T1: ::planus::WriteAsDefault<u32, u32>,
            {
                let (v0,) = self.0;
                StackNodeBuilder((v0, value))
            }

            /// Sets the [`frame` field](StackNode#structfield.frame) to the default value.
            #[inline]
            #[allow(clippy::type_complexity)]
            pub fn frame_as_default(self) -> StackNodeBuilder<(T0, ::planus::DefaultValue)> {
                self.frame(::planus::DefaultValue)
            }
        }

        impl<T0, T1> StackNodeBuilder<(T0, T1)> {
            /// Finish writing the builder to get an [Offset](::planus::Offset) to a serialized [StackNode].
            #[inline]
            pub fn finish(self, builder: &mut ::planus::Builder) -> ::planus::Offset<StackNode>
            where
                Self: ::planus::WriteAsOffset<StackNode>,
            {
                ::planus::WriteAsOffset::prepare(&self, builder)
            }
        }

        impl<T0: ::planus::WriteAsDefault<u32, u32>, T1: ::planus::WriteAsDefault<u32, u32>>
            ::planus::WriteAs<::planus::Offset<StackNode>> for StackNodeBuilder<(T0, T1)>
        {
            type Prepared = ::planus::Offset<StackNode>;

            #[inline]
            fn prepare(&self, builder: &mut ::planus::Builder) -> ::planus::Offset<StackNode> {
                ::planus::WriteAsOffset::prepare(self, builder)
            }
        }

        impl<T0: ::planus::WriteAsDefault<u32, u32>, T1: ::planus::WriteAsDefault<u32, u32>>
            ::planus::WriteAsOptional<::planus::Offset<StackNode>> for StackNodeBuilder<(T0, T1)>
        {
            type Prepared = ::planus::Offset<StackNode>;

            #[inline]
            fn prepare(
                &self,
                builder: &mut ::planus::Builder,
            ) -> ::core::option::Option<::planus::Offset<StackNode>> {
                ::core::option::Option::Some(::planus::WriteAsOffset::prepare(self, builder))
            }
        }

        impl<T0: ::planus::WriteAsDefault<u32, u32>, T1: ::planus::WriteAsDefault<u32, u32>>
            ::planus::WriteAsOffset<StackNode> for StackNodeBuilder<(T0, T1)>
        {
            #[inline]
            fn prepare(&self, builder: &mut ::planus::Builder) -> ::planus::Offset<StackNode> {
                let (v0, v1) = &self.0;
                StackNode::create(builder, v0, v1)
            }
        }

        /// Reference to a deserialized [StackNode].
        #[derive(Copy, Clone)]
        pub struct StackNodeRef<'a>(#[allow(dead_code)] ::planus::table_reader::Table<'a>);

        impl<'a> StackNodeRef<'a> {
            /// Getter for the [`parent` field](StackNode#structfield.parent).
            #[inline]
            pub fn parent(&self) -> ::planus::Result<u32> {
                ::core::result::Result::Ok(self.0.access(0, "StackNode", "parent")?.unwrap_or(0))
            }

            /// Getter for the [`frame` field](StackNode#structfield.frame).
            #[inline]
            pub fn frame(&self) -> ::planus::Result<u32> {
                ::core::result::Result::Ok(self.0.access(1, "StackNode", "frame")?.unwrap_or(0))
            }
        }

        impl<'a> ::core::fmt::Debug for StackNodeRef<'a> {
            fn fmt(&self, f: &mut ::core::fmt::Formatter<'_>) -> ::core::fmt::Result {
                let mut f = f.debug_struct("StackNodeRef");
                f.field("parent", &self.parent());
                f.field("frame", &self.frame());
                f.finish()
            }
        }

        impl<'a> ::core::convert::TryFrom<StackNodeRef<'a>> for StackNode {
            type Error = ::planus::Error;

            #[allow(unreachable_code)]
            fn try_from(value: StackNodeRef<'a>) -> ::planus::Result<Self> {
                ::core::result::Result::Ok(Self {
                    parent: ::core::convert::TryInto::try_into(value.parent()?)?,
                    frame: ::core::convert::TryInto::try_into(value.frame()?)?,
                })
            }
        }

        impl<'a> ::planus::TableRead<'a> for StackNodeRef<'a> {
            #[inline]
            fn from_buffer(
                buffer: ::planus::SliceWithStartOffset<'a>,
                offset: usize,
            ) -> ::core::result::Result<Self, ::planus::errors::ErrorKind> {
                ::core::result::Result::Ok(Self(::planus::table_reader::Table::from_buffer(buffer, offset)?))
            }
        }

        impl<'a> ::planus::VectorReadInner<'a> for StackNodeRef<'a> {
            type Error = ::planus::Error;
            const STRIDE: usize = 4;

            unsafe fn from_buffer(
                buffer: ::planus::SliceWithStartOffset<'a>,
                offset: usize,
            ) -> ::planus::Result<Self> {
                ::planus::TableRead::from_buffer(buffer, offset).map_err(|error_kind| {
                    error_kind.with_error_location("[StackNodeRef]", "get", buffer.offset_from_start)
                })
            }
        }

        /// # Safety
        /// The planus compiler generates implementations that initialize
        /// the bytes in `write_values`.
        unsafe impl ::planus::VectorWrite<::planus::Offset<StackNode>> for StackNode {
            type Value = ::planus::Offset<StackNode>;
            const STRIDE: usize = 4;
            #[inline]
            fn prepare(&self, builder: &mut ::planus::Builder) -> Self::Value {
                ::planus::WriteAs::prepare(self, builder)
            }

            #[inline]
            unsafe fn write_values(
                values: &[::planus::Offset<StackNode>],
                bytes: *mut ::core::mem::MaybeUninit<u8>,
                buffer_position: u32,
            ) {
                let bytes = bytes as *mut [::core::mem::MaybeUninit<u8>; 4];
                for (i, v) in ::core::iter::Iterator::enumerate(values.iter()) {
                    ::planus::WriteAsPrimitive::write(
                        v,
                        ::planus::Cursor::new(unsafe { &mut *bytes.add(i) }),
                        buffer_position - (Self::STRIDE * i) as u32,
                    );
                }
            }
        }

        impl<'a> ::planus::ReadAsRoot<'a> for StackNodeRef<'a> {
            fn read_as_root(slice: &'a [u8]) -> ::planus::Result<Self> {
                ::planus::TableRead::from_buffer(
                    ::planus::SliceWithStartOffset { buffer: slice, offset_from_start: 0 },
                    0,
                )
                .map_err(|error_kind| error_kind.with_error_location("[StackNodeRef]", "read_as_root", 0))
            }
        }

        /// The table `Label` in the namespace `capture`
        ///
        /// Generated from these locations:
        /// * Table `Label` in the file `schemas/capture.fbs:48`
        #[derive(
            Clone, Debug, PartialEq, PartialOrd, Eq, Ord, Hash, ::serde::Serialize, ::serde::Deserialize,
        )]
        pub struct Label {
            /// The field `key` in the table `Label`
            pub key: ::core::option::Option<::planus::alloc::string::String>,
            /// The field `value` in the table `Label`
            pub value: ::core::option::Option<::planus::alloc::string::String>,
        }

        #[allow(clippy::derivable_impls)]
        impl ::core::default::Default for Label {
            fn default() -> Self {
                Self { key: ::core::default::Default::default(), value: ::core::default::Default::default() }
            }
        }

        impl Label {
            /// Creates a [LabelBuilder] for serializing an instance of this table.
            #[inline]
            pub fn builder() -> LabelBuilder<()> {
                LabelBuilder(())
            }

            #[allow(clippy::too_many_arguments)]
            pub fn create(
                builder: &mut ::planus::Builder,
                field_key: impl ::planus::WriteAsOptional<::planus::Offset<::core::primitive::str>>,
                field_value: impl ::planus::WriteAsOptional<::planus::Offset<::core::primitive::str>>,
            ) -> ::planus::Offset<Self> {
                let prepared_key = field_key.prepare(builder);
                let prepared_value = field_value.prepare(builder);

                let mut table_writer: ::planus::table_writer::TableWriter<8> =
                    ::core::default::Default::default();
                if prepared_key.is_some() {
                    table_writer.write_entry::<::planus::Offset<str>>(0);
                }
                if prepared_value.is_some() {
                    table_writer.write_entry::<::planus::Offset<str>>(1);
                }

                unsafe {
                    table_writer.finish(builder, |object_writer| {
                        if let ::core::option::Option::Some(prepared_key) = prepared_key {
                            object_writer.write::<_, _, 4>(&prepared_key);
                        }
                        if let ::core::option::Option::Some(prepared_value) = prepared_value {
                            object_writer.write::<_, _, 4>(&prepared_value);
                        }
                    });
                }
                builder.current_offset()
            }
        }

        impl ::planus::WriteAs<::planus::Offset<Label>> for Label {
            type Prepared = ::planus::Offset<Self>;

            #[inline]
            fn prepare(&self, builder: &mut ::planus::Builder) -> ::planus::Offset<Label> {
                ::planus::WriteAsOffset::prepare(self, builder)
            }
        }

        impl ::planus::WriteAsOptional<::planus::Offset<Label>> for Label {
            type Prepared = ::planus::Offset<Self>;

            #[inline]
            fn prepare(
                &self,
                builder: &mut ::planus::Builder,
            ) -> ::core::option::Option<::planus::Offset<Label>> {
                ::core::option::Option::Some(::planus::WriteAsOffset::prepare(self, builder))
            }
        }

        impl ::planus::WriteAsOffset<Label> for Label {
            #[inline]
            fn prepare(&self, builder: &mut ::planus::Builder) -> ::planus::Offset<Label> {
                Label::create(builder, &self.key, &self.value)
            }
        }

        /// Builder for serializing an instance of the [Label] type.
        ///
        /// Can be created using the [Label::builder] method.
        #[derive(Debug)]
        #[must_use]
        pub struct LabelBuilder<State>(State);

        impl LabelBuilder<()> {
            /// Setter for the [`key` field](Label#structfield.key).
            #[inline]
            #[allow(clippy::type_complexity)]
            pub fn key<T0>(self, value: T0) -> LabelBuilder<(T0,)>
            where
                T0: ::planus::WriteAsOptional<::planus::Offset<::core::primitive::str>>,
            {
                LabelBuilder((value,))
            }

            /// Sets the [`key` field](Label#structfield.key) to null.
            #[inline]
            #[allow(clippy::type_complexity)]
            pub fn key_as_null(self) -> LabelBuilder<((),)> {
                self.key(())
            }
        }

        impl<T0> LabelBuilder<(T0,)> {
            /// Setter for the [`value` field](Label#structfield.value).
            #[inline]
            #[allow(clippy::type_complexity)]
            pub fn value<T1>(self, value: T1) -> LabelBuilder<(T0, T1)>
            where
                T1: ::planus::WriteAsOptional<::planus::Offset<::core::primitive::str>>,
            {
                let (v0,) = self.0;
                LabelBuilder((v0, value))
            }

            /// Sets the [`value` field](Label#structfield.value) to null.
            #[inline]
            #[allow(clippy::type_complexity)]
            pub fn value_as_null(self) -> LabelBuilder<(T0, ())> {
                self.value(())
            }
        }

        impl<T0, T1> LabelBuilder<(T0, T1)> {
            /// Finish writing the builder to get an [Offset](::planus::Offset) to a serialized [Label].
            #[inline]
            pub fn finish(self, builder: &mut ::planus::Builder) -> ::planus::Offset<Label>
            where
                Self: ::planus::WriteAsOffset<Label>,
            {
                ::planus::WriteAsOffset::prepare(&self, builder)
            }
        }

        impl<
                T0: ::planus::WriteAsOptional<::planus::Offset<::core::primitive::str>>,
                T1: ::planus::WriteAsOptional<::planus::Offset<::core::primitive::str>>,
            > ::planus::WriteAs<::planus::Offset<Label>> for LabelBuilder<(T0, T1)>
        {
            type Prepared = ::planus::Offset<Label>;

            #[inline]
            fn prepare(&self, builder: &mut ::planus::Builder) -> ::planus::Offset<Label> {
                ::planus::WriteAsOffset::prepare(self, builder)
            }
        }

        impl<
                T0: ::planus::WriteAsOptional<::planus::Offset<::core::primitive::str>>,
                T1: ::planus::WriteAsOptional<::planus::Offset<::core::primitive::str>>,
            > ::planus::WriteAsOptional<::planus::Offset<Label>> for LabelBuilder<(T0, T1)>
        {
            type Prepared = ::planus::Offset<Label>;

            #[inline]
            fn prepare(
                &self,
                builder: &mut ::planus::Builder,
            ) -> ::core::option::Option<::planus::Offset<Label>> {
                ::core::option::Option::Some(::planus::WriteAsOffset::prepare(self, builder))
            }
        }

        impl<
                T0: ::planus::WriteAsOptional<::planus::Offset<::core::primitive::str>>,
                T1: ::planus::WriteAsOptional<::planus::Offset<::core::primitive::str>>,
            > ::planus::WriteAsOffset<Label> for LabelBuilder<(T0, T1)>
        {
            #[inline]
            fn prepare(&self, builder: &mut ::planus::Builder) -> ::planus::Offset<Label> {
                let (v0, v1) = &self.0;
                Label::create(builder, v0, v1)
            }
        }

        /// Reference to a deserialized [Label].
        #[derive(Copy, Clone)]
        pub struct LabelRef<'a>(#[allow(dead_code)] ::planus::table_reader::Table<'a>);

        impl<'a> LabelRef<'a> {
            /// Getter for the [`key` field](Label#structfield.key).
            #[inline]
            pub fn key(&self) -> ::planus::Result<::core::option::Option<&'a ::core::primitive::str>> {
                self.0.access(0, "Label", "key")
            }

            /// Getter for the [`value` field](Label#structfield.value).
            #[inline]
            pub fn value(&self) -> ::planus::Result<::core::option::Option<&'a ::core::primitive::str>> {
                self.0.access(1, "Label", "value")
            }
        }

        impl<'a> ::core::fmt::Debug for LabelRef<'a> {
            fn fmt(&self, f: &mut ::core::fmt::Formatter<'_>) -> ::core::fmt::Result {
                let mut f = f.debug_struct("LabelRef");
                if let ::core::option::Option::Some(field_key) = self.key().transpose() {
                    f.field("key", &field_key);
                }
                if let ::core::option::Option::Some(field_value) = self.value().transpose() {
                    f.field("value", &field_value);
                }
                f.finish()
            }
        }

        impl<'a> ::core::convert::TryFrom<LabelRef<'a>> for Label {
            type Error = ::planus::Error;

            #[allow(unreachable_code)]
            fn try_from(value: LabelRef<'a>) -> ::planus::Result<Self> {
                ::core::result::Result::Ok(Self {
                    key: value.key()?.map(::core::convert::Into::into),
                    value: value.value()?.map(::core::convert::Into::into),
                })
            }
        }

        impl<'a> ::planus::TableRead<'a> for LabelRef<'a> {
            #[inline]
            fn from_buffer(
                buffer: ::planus::SliceWithStartOffset<'a>,
                offset: usize,
            ) -> ::core::result::Result<Self, ::planus::errors::ErrorKind> {
                ::core::result::Result::Ok(Self(::planus::table_reader::Table::from_buffer(buffer, offset)?))
            }
        }

        impl<'a> ::planus::VectorReadInner<'a> for LabelRef<'a> {
            type Error = ::planus::Error;
            const STRIDE: usize = 4;

            unsafe fn from_buffer(
                buffer: ::planus::SliceWithStartOffset<'a>,
                offset: usize,
            ) -> ::planus::Result<Self> {
                ::planus::TableRead::from_buffer(buffer, offset).map_err(|error_kind| {
                    error_kind.with_error_location("[LabelRef]", "get", buffer.offset_from_start)
                })
            }
        }

        /// # Safety
        /// The planus compiler generates implementations that initialize
        /// the bytes in `write_values`.
        unsafe impl ::planus::VectorWrite<::planus::Offset<Label>> for Label {
            type Value = ::planus::Offset<Label>;
            const STRIDE: usize = 4;
            #[inline]
            fn prepare(&self, builder: &mut ::planus::Builder) -> Self::Value {
                ::planus::WriteAs::prepare(self, builder)
            }

            #[inline]
            unsafe fn write_values(
                values: &[::planus::Offset<Label>],
                bytes: *mut ::core::mem::MaybeUninit<u8>,
                buffer_position: u32,
            ) {
                let bytes = bytes as *mut [::core::mem::MaybeUninit<u8>; 4];
                for (i, v) in ::core::iter::Iterator::enumerate(values.iter()) {
                    ::planus::WriteAsPrimitive::write(
                        v,
                        ::planus::Cursor::new(unsafe { &mut *bytes.add(i) }),
                        buffer_position - (Self::STRIDE * i) as u32,
                    );
                }
            }
        }

        impl<'a> ::planus::ReadAsRoot<'a> for LabelRef<'a> {
            fn read_as_root(slice: &'a [u8]) -> ::planus::Result<Self> {
                ::planus::TableRead::from_buffer(
                    ::planus::SliceWithStartOffset { buffer: slice, offset_from_start: 0 },
                    0,
                )
                .map_err(|error_kind| error_kind.with_error_location("[LabelRef]", "read_as_root", 0))
            }
        }

        /// The table `SegmentHeader` in the namespace `capture`
        ///
        /// Generated from these locations:
        /// * Table `SegmentHeader` in the file `schemas/capture.fbs:50`
        #[derive(
            Clone, Debug, PartialEq, PartialOrd, Eq, Ord, Hash, ::serde::Serialize, ::serde::Deserialize,
        )]
        pub struct SegmentHeader {
            /// The field `sequence` in the table `SegmentHeader`
            pub sequence: u64,
            /// The field `writer` in the table `SegmentHeader`
            pub writer: ::core::option::Option<::planus::alloc::string::String>,
            /// The field `host` in the table `SegmentHeader`
            pub host: ::core::option::Option<::planus::alloc::string::String>,
            /// The field `boot_id` in the table `SegmentHeader`
            pub boot_id: ::core::option::Option<::planus::alloc::string::String>,
            /// The field `sources` in the table `SegmentHeader`
            pub sources: ::core::option::Option<::planus::alloc::vec::Vec<self::Source>>,
            /// The field `clocks` in the table `SegmentHeader`
            pub clocks: ::core::option::Option<::planus::alloc::vec::Vec<self::Clock>>,
            /// The field `losses` in the table `SegmentHeader`
            pub losses: ::core::option::Option<::planus::alloc::vec::Vec<self::LossCount>>,
            /// The field `first_string` in the table `SegmentHeader`
            pub first_string: u32,
            /// The field `strings` in the table `SegmentHeader`
            pub strings: ::core::option::Option<::planus::alloc::vec::Vec<::planus::alloc::string::String>>,
            /// The field `first_stack` in the table `SegmentHeader`
            pub first_stack: u32,
            /// The field `stacks` in the table `SegmentHeader`
            pub stacks: ::core::option::Option<::planus::alloc::vec::Vec<self::StackNode>>,
            /// The field `processes` in the table `SegmentHeader`
            pub processes: ::core::option::Option<::planus::alloc::vec::Vec<self::Process>>,
            /// The field `threads` in the table `SegmentHeader`
            pub threads: ::core::option::Option<::planus::alloc::vec::Vec<self::Thread>>,
            /// The field `devices` in the table `SegmentHeader`
            pub devices: ::core::option::Option<::planus::alloc::vec::Vec<self::Device>>,
            /// The field `labels` in the table `SegmentHeader`
            pub labels: ::core::option::Option<::planus::alloc::vec::Vec<self::Label>>,
            /// The field `batches` in the table `SegmentHeader`
            pub batches: ::core::option::Option<::planus::alloc::vec::Vec<self::Batch>>,
        }

        #[allow(clippy::derivable_impls)]
        impl ::core::default::Default for SegmentHeader {
            fn default() -> Self {
                Self {
                    sequence: 0,
                    writer: ::core::default::Default::default(),
                    host: ::core::default::Default::default(),
                    boot_id: ::core::default::Default::default(),
                    sources: ::core::default::Default::default(),
                    clocks: ::core::default::Default::default(),
                    losses: ::core::default::Default::default(),
                    first_string: 0,
                    strings: ::core::default::Default::default(),
                    first_stack: 0,
                    stacks: ::core::default::Default::default(),
                    processes: ::core::default::Default::default(),
                    threads: ::core::default::Default::default(),
                    devices: ::core::default::Default::default(),
                    labels: ::core::default::Default::default(),
                    batches: ::core::default::Default::default(),
                }
            }
        }

        impl SegmentHeader {
            /// Creates a [SegmentHeaderBuilder] for serializing an instance of this table.
            #[inline]
            pub fn builder() -> SegmentHeaderBuilder<()> {
                SegmentHeaderBuilder(())
            }

            #[allow(clippy::too_many_arguments)]
            pub fn create(
                builder: &mut ::planus::Builder,
                field_sequence: impl ::planus::WriteAsDefault<u64, u64>,
                field_writer: impl ::planus::WriteAsOptional<::planus::Offset<::core::primitive::str>>,
                field_host: impl ::planus::WriteAsOptional<::planus::Offset<::core::primitive::str>>,
                field_boot_id: impl ::planus::WriteAsOptional<::planus::Offset<::core::primitive::str>>,
                field_sources: impl ::planus::WriteAsOptional<::planus::Offset<[::planus::Offset<self::Source>]>>,
                field_clocks: impl ::planus::WriteAsOptional<::planus::Offset<[::planus::Offset<self::Clock>]>>,
                field_losses: impl ::planus::WriteAsOptional<
                    ::planus::Offset<[::planus::Offset<self::LossCount>]>,
                >,
                field_first_string: impl ::planus::WriteAsDefault<u32, u32>,
                field_strings: impl ::planus::WriteAsOptional<::planus::Offset<[::planus::Offset<str>]>>,
                field_first_stack: impl ::planus::WriteAsDefault<u32, u32>,
                field_stacks: impl ::planus::WriteAsOptional<
                    ::planus::Offset<[::planus::Offset<self::StackNode>]>,
                >,
                field_processes: impl ::planus::WriteAsOptional<
                    ::planus::Offset<[::planus::Offset<self::Process>]>,
                >,
                field_threads: impl ::planus::WriteAsOptional<::planus::Offset<[::planus::Offset<self::Thread>]>>,
                field_devices: impl ::planus::WriteAsOptional<::planus::Offset<[::planus::Offset<self::Device>]>>,
                field_labels: impl ::planus::WriteAsOptional<::planus::Offset<[::planus::Offset<self::Label>]>>,
                field_batches: impl ::planus::WriteAsOptional<::planus::Offset<[::planus::Offset<self::Batch>]>>,
            ) -> ::planus::Offset<Self> {
                let prepared_sequence = field_sequence.prepare(builder, &0);
                let prepared_writer = field_writer.prepare(builder);
                let prepared_host = field_host.prepare(builder);
                let prepared_boot_id = field_boot_id.prepare(builder);
                let prepared_sources = field_sources.prepare(builder);
                let prepared_clocks = field_clocks.prepare(builder);
                let prepared_losses = field_losses.prepare(builder);
                let prepared_first_string = field_first_string.prepare(builder, &0);
                let prepared_strings = field_strings.prepare(builder);
                let prepared_first_stack = field_first_stack.prepare(builder, &0);
                let prepared_stacks = field_stacks.prepare(builder);
                let prepared_processes = field_processes.prepare(builder);
                let prepared_threads = field_threads.prepare(builder);
                let prepared_devices = field_devices.prepare(builder);
                let prepared_labels = field_labels.prepare(builder);
                let prepared_batches = field_batches.prepare(builder);

                let mut table_writer: ::planus::table_writer::TableWriter<36> =
                    ::core::default::Default::default();
                if prepared_sequence.is_some() {
                    table_writer.write_entry::<u64>(0);
                }
                if prepared_writer.is_some() {
                    table_writer.write_entry::<::planus::Offset<str>>(1);
                }
                if prepared_host.is_some() {
                    table_writer.write_entry::<::planus::Offset<str>>(2);
                }
                if prepared_boot_id.is_some() {
                    table_writer.write_entry::<::planus::Offset<str>>(3);
                }
                if prepared_sources.is_some() {
                    table_writer.write_entry::<::planus::Offset<[::planus::Offset<self::Source>]>>(4);
                }
                if prepared_clocks.is_some() {
                    table_writer.write_entry::<::planus::Offset<[::planus::Offset<self::Clock>]>>(5);
                }
                if prepared_losses.is_some() {
                    table_writer.write_entry::<::planus::Offset<[::planus::Offset<self::LossCount>]>>(6);
                }
                if prepared_first_string.is_some() {
                    table_writer.write_entry::<u32>(7);
                }
                if prepared_strings.is_some() {
                    table_writer.write_entry::<::planus::Offset<[::planus::Offset<str>]>>(8);
                }
                if prepared_first_stack.is_some() {
                    table_writer.write_entry::<u32>(9);
                }
                if prepared_stacks.is_some() {
                    table_writer.write_entry::<::planus::Offset<[::planus::Offset<self::StackNode>]>>(10);
                }
                if prepared_processes.is_some() {
                    table_writer.write_entry::<::planus::Offset<[::planus::Offset<self::Process>]>>(11);
                }
                if prepared_threads.is_some() {
                    table_writer.write_entry::<::planus::Offset<[::planus::Offset<self::Thread>]>>(12);
                }
                if prepared_devices.is_some() {
                    table_writer.write_entry::<::planus::Offset<[::planus::Offset<self::Device>]>>(13);
                }
                if prepared_labels.is_some() {
                    table_writer.write_entry::<::planus::Offset<[::planus::Offset<self::Label>]>>(14);
                }
                if prepared_batches.is_some() {
                    table_writer.write_entry::<::planus::Offset<[::planus::Offset<self::Batch>]>>(15);
                }

                unsafe {
                    table_writer.finish(builder, |object_writer| {
                        if let ::core::option::Option::Some(prepared_sequence) = prepared_sequence {
                            object_writer.write::<_, _, 8>(&prepared_sequence);
                        }
                        if let ::core::option::Option::Some(prepared_writer) = prepared_writer {
                            object_writer.write::<_, _, 4>(&prepared_writer);
                        }
                        if let ::core::option::Option::Some(prepared_host) = prepared_host {
                            object_writer.write::<_, _, 4>(&prepared_host);
                        }
                        if let ::core::option::Option::Some(prepared_boot_id) = prepared_boot_id {
                            object_writer.write::<_, _, 4>(&prepared_boot_id);
                        }
                        if let ::core::option::Option::Some(prepared_sources) = prepared_sources {
                            object_writer.write::<_, _, 4>(&prepared_sources);
                        }
                        if let ::core::option::Option::Some(prepared_clocks) = prepared_clocks {
                            object_writer.write::<_, _, 4>(&prepared_clocks);
                        }
                        if let ::core::option::Option::Some(prepared_losses) = prepared_losses {
                            object_writer.write::<_, _, 4>(&prepared_losses);
                        }
                        if let ::core::option::Option::Some(prepared_first_string) = prepared_first_string {
                            object_writer.write::<_, _, 4>(&prepared_first_string);
                        }
                        if let ::core::option::Option::Some(prepared_strings) = prepared_strings {
                            object_writer.write::<_, _, 4>(&prepared_strings);
                        }
                        if let ::core::option::Option::Some(prepared_first_stack) = prepared_first_stack {
                            object_writer.write::<_, _, 4>(&prepared_first_stack);
                        }
                        if let ::core::option::Option::Some(prepared_stacks) = prepared_stacks {
                            object_writer.write::<_, _, 4>(&prepared_stacks);
                        }
                        if let ::core::option::Option::Some(prepared_processes) = prepared_processes {
                            object_writer.write::<_, _, 4>(&prepared_processes);
                        }
                        if let ::core::option::Option::Some(prepared_threads) = prepared_threads {
                            object_writer.write::<_, _, 4>(&prepared_threads);
                        }
                        if let ::core::option::Option::Some(prepared_devices) = prepared_devices {
                            object_writer.write::<_, _, 4>(&prepared_devices);
                        }
                        if let ::core::option::Option::Some(prepared_labels) = prepared_labels {
                            object_writer.write::<_, _, 4>(&prepared_labels);
                        }
                        if let ::core::option::Option::Some(prepared_batches) = prepared_batches {
                            object_writer.write::<_, _, 4>(&prepared_batches);
                        }
                    });
                }
                builder.current_offset()
            }
        }

        impl ::planus::WriteAs<::planus::Offset<SegmentHeader>> for SegmentHeader {
            type Prepared = ::planus::Offset<Self>;

            #[inline]
            fn prepare(&self, builder: &mut ::planus::Builder) -> ::planus::Offset<SegmentHeader> {
                ::planus::WriteAsOffset::prepare(self, builder)
            }
        }

        impl ::planus::WriteAsOptional<::planus::Offset<SegmentHeader>> for SegmentHeader {
            type Prepared = ::planus::Offset<Self>;

            #[inline]
            fn prepare(
                &self,
                builder: &mut ::planus::Builder,
            ) -> ::core::option::Option<::planus::Offset<SegmentHeader>> {
                ::core::option::Option::Some(::planus::WriteAsOffset::prepare(self, builder))
            }
        }

        impl ::planus::WriteAsOffset<SegmentHeader> for SegmentHeader {
            #[inline]
            fn prepare(&self, builder: &mut ::planus::Builder) -> ::planus::Offset<SegmentHeader> {
                SegmentHeader::create(
                    builder,
                    self.sequence,
                    &self.writer,
                    &self.host,
                    &self.boot_id,
                    &self.sources,
                    &self.clocks,
                    &self.losses,
                    self.first_string,
                    &self.strings,
                    self.first_stack,
                    &self.stacks,
                    &self.processes,
                    &self.threads,
                    &self.devices,
                    &self.labels,
                    &self.batches,
                )
            }
        }

        /// Builder for serializing an instance of the [SegmentHeader] type.
        ///
        /// Can be created using the [SegmentHeader::builder] method.
        #[derive(Debug)]
        #[must_use]
        pub struct SegmentHeaderBuilder<State>(State);

        impl SegmentHeaderBuilder<()> {
            /// Setter for the [`sequence` field](SegmentHeader#structfield.sequence).
            #[inline]
            #[allow(clippy::type_complexity)]
            pub fn sequence<T0>(self, value: T0) -> SegmentHeaderBuilder<(T0,)>
            where
                T0: ::planus::WriteAsDefault<u64, u64>,
            {
                SegmentHeaderBuilder((value,))
            }

            /// Sets the [`sequence` field](SegmentHeader#structfield.sequence) to the default value.
            #[inline]
            #[allow(clippy::type_complexity)]
            pub fn sequence_as_default(self) -> SegmentHeaderBuilder<(::planus::DefaultValue,)> {
                self.sequence(::planus::DefaultValue)
            }
        }

        impl<T0> SegmentHeaderBuilder<(T0,)> {
            /// Setter for the [`writer` field](SegmentHeader#structfield.writer).
            #[inline]
            #[allow(clippy::type_complexity)]
            pub fn writer<T1>(self, value: T1) -> SegmentHeaderBuilder<(T0, T1)>
            where
                T1: ::planus::WriteAsOptional<::planus::Offset<::core::primitive::str>>,
            {
                let (v0,) = self.0;
                SegmentHeaderBuilder((v0, value))
            }

            /// Sets the [`writer` field](SegmentHeader#structfield.writer) to null.
            #[inline]
            #[allow(clippy::type_complexity)]
            pub fn writer_as_null(self) -> SegmentHeaderBuilder<(T0, ())> {
                self.writer(())
            }
        }

        impl<T0, T1> SegmentHeaderBuilder<(T0, T1)> {
            /// Setter for the [`host` field](SegmentHeader#structfield.host).
            #[inline]
            #[allow(clippy::type_complexity)]
            pub fn host<T2>(self, value: T2) -> SegmentHeaderBuilder<(T0, T1, T2)>
            where
                T2: ::planus::WriteAsOptional<::planus::Offset<::core::primitive::str>>,
            {
                let (v0, v1) = self.0;
                SegmentHeaderBuilder((v0, v1, value))
            }

            /// Sets the [`host` field](SegmentHeader#structfield.host) to null.
            #[inline]
            #[allow(clippy::type_complexity)]
            pub fn host_as_null(self) -> SegmentHeaderBuilder<(T0, T1, ())> {
                self.host(())
            }
        }

        impl<T0, T1, T2> SegmentHeaderBuilder<(T0, T1, T2)> {
            /// Setter for the [`boot_id` field](SegmentHeader#structfield.boot_id).
            #[inline]
            #[allow(clippy::type_complexity)]
            pub fn boot_id<T3>(self, value: T3) -> SegmentHeaderBuilder<(T0, T1, T2, T3)>
            where
                T3: ::planus::WriteAsOptional<::planus::Offset<::core::primitive::str>>,
            {
                let (v0, v1, v2) = self.0;
                SegmentHeaderBuilder((v0, v1, v2, value))
            }

            /// Sets the [`boot_id` field](SegmentHeader#structfield.boot_id) to null.
            #[inline]
            #[allow(clippy::type_complexity)]
            pub fn boot_id_as_null(self) -> SegmentHeaderBuilder<(T0, T1, T2, ())> {
                self.boot_id(())
            }
        }

        impl<T0, T1, T2, T3> SegmentHeaderBuilder<(T0, T1, T2, T3)> {
            /// Setter for the [`sources` field](SegmentHeader#structfield.sources).
            #[inline]
            #[allow(clippy::type_complexity)]
            pub fn sources<T4>(self, value: T4) -> SegmentHeaderBuilder<(T0, T1, T2, T3, T4)>
            where
                T4: ::planus::WriteAsOptional<::planus::Offset<[::planus::Offset<self::Source>]>>,
            {
                let (v0, v1, v2, v3) = self.0;
                SegmentHeaderBuilder((v0, v1, v2, v3, value))
            }

            /// Sets the [`sources` field](SegmentHeader#structfield.sources) to null.
            #[inline]
            #[allow(clippy::type_complexity)]
            pub fn sources_as_null(self) -> SegmentHeaderBuilder<(T0, T1, T2, T3, ())> {
                self.sources(())
            }
        }

        impl<T0, T1, T2, T3, T4> SegmentHeaderBuilder<(T0, T1, T2, T3, T4)> {
            /// Setter for the [`clocks` field](SegmentHeader#structfield.clocks).
            #[inline]
            #[allow(clippy::type_complexity)]
            pub fn clocks<T5>(self, value: T5) -> SegmentHeaderBuilder<(T0, T1, T2, T3, T4, T5)>
            where
                T5: ::planus::WriteAsOptional<::planus::Offset<[::planus::Offset<self::Clock>]>>,
            {
                let (v0, v1, v2, v3, v4) = self.0;
                SegmentHeaderBuilder((v0, v1, v2, v3, v4, value))
            }

            /// Sets the [`clocks` field](SegmentHeader#structfield.clocks) to null.
            #[inline]
            #[allow(clippy::type_complexity)]
            pub fn clocks_as_null(self) -> SegmentHeaderBuilder<(T0, T1, T2, T3, T4, ())> {
                self.clocks(())
            }
        }

        impl<T0, T1, T2, T3, T4, T5> SegmentHeaderBuilder<(T0, T1, T2, T3, T4, T5)> {
            /// Setter for the [`losses` field](SegmentHeader#structfield.losses).
            #[inline]
            #[allow(clippy::type_complexity)]
            pub fn losses<T6>(self, value: T6) -> SegmentHeaderBuilder<(T0, T1, T2, T3, T4, T5, T6)>
            where
                T6: ::planus::WriteAsOptional<::planus::Offset<[::planus::Offset<self::LossCount>]>>,
            {
                let (v0, v1, v2, v3, v4, v5) = self.0;
                SegmentHeaderBuilder((v0, v1, v2, v3, v4, v5, value))
            }

            /// Sets the [`losses` field](SegmentHeader#structfield.losses) to null.
            #[inline]
            #[allow(clippy::type_complexity)]
            pub fn losses_as_null(self) -> SegmentHeaderBuilder<(T0, T1, T2, T3, T4, T5, ())> {
                self.losses(())
            }
        }

        impl<T0, T1, T2, T3, T4, T5, T6> SegmentHeaderBuilder<(T0, T1, T2, T3, T4, T5, T6)> {
            /// Setter for the [`first_string` field](SegmentHeader#structfield.first_string).
            #[inline]
            #[allow(clippy::type_complexity)]
            pub fn first_string<T7>(self, value: T7) -> SegmentHeaderBuilder<(T0, T1, T2, T3, T4, T5, T6, T7)>
            where
                T7: ::planus::WriteAsDefault<u32, u32>,
            {
                let (v0, v1, v2, v3, v4, v5, v6) = self.0;
                SegmentHeaderBuilder((v0, v1, v2, v3, v4, v5, v6, value))
            }

            /// Sets the [`first_string` field](SegmentHeader#structfield.first_string) to the default value.
            #[inline]
            #[allow(clippy::type_complexity)]
            pub fn first_string_as_default(
                self,
            ) -> SegmentHeaderBuilder<(T0, T1, T2, T3, T4, T5, T6, ::planus::DefaultValue)> {
                self.first_string(::planus::DefaultValue)
            }
        }

        impl<T0, T1, T2, T3, T4, T5, T6, T7> SegmentHeaderBuilder<(T0, T1, T2, T3, T4, T5, T6, T7)> {
            /// Setter for the [`strings` field](SegmentHeader#structfield.strings).
            #[inline]
            #[allow(clippy::type_complexity)]
            pub fn strings<T8>(self, value: T8) -> SegmentHeaderBuilder<(T0, T1, T2, T3, T4, T5, T6, T7, T8)>
            where
                T8: ::planus::WriteAsOptional<::planus::Offset<[::planus::Offset<str>]>>,
            {
                let (v0, v1, v2, v3, v4, v5, v6, v7) = self.0;
                SegmentHeaderBuilder((v0, v1, v2, v3, v4, v5, v6, v7, value))
            }

            /// Sets the [`strings` field](SegmentHeader#structfield.strings) to null.
            #[inline]
            #[allow(clippy::type_complexity)]
            pub fn strings_as_null(self) -> SegmentHeaderBuilder<(T0, T1, T2, T3, T4, T5, T6, T7, ())> {
                self.strings(())
            }
        }

        impl<T0, T1, T2, T3, T4, T5, T6, T7, T8> SegmentHeaderBuilder<(T0, T1, T2, T3, T4, T5, T6, T7, T8)> {
            /// Setter for the [`first_stack` field](SegmentHeader#structfield.first_stack).
            #[inline]
            #[allow(clippy::type_complexity)]
            pub fn first_stack<T9>(
                self,
                value: T9,
            ) -> SegmentHeaderBuilder<(T0, T1, T2, T3, T4, T5, T6, T7, T8, T9)>
            where
                T9: ::planus::WriteAsDefault<u32, u32>,
            {
                let (v0, v1, v2, v3, v4, v5, v6, v7, v8) = self.0;
                SegmentHeaderBuilder((v0, v1, v2, v3, v4, v5, v6, v7, v8, value))
            }

            /// Sets the [`first_stack` field](SegmentHeader#structfield.first_stack) to the default value.
            #[inline]
            #[allow(clippy::type_complexity)]
            pub fn first_stack_as_default(
                self,
            ) -> SegmentHeaderBuilder<(T0, T1, T2, T3, T4, T5, T6, T7, T8, ::planus::DefaultValue)>
            {
                self.first_stack(::planus::DefaultValue)
            }
        }

        impl<T0, T1, T2, T3, T4, T5, T6, T7, T8, T9> SegmentHeaderBuilder<(T0, T1, T2, T3, T4, T5, T6, T7, T8, T9)> {
            /// Setter for the [`stacks` field](SegmentHeader#structfield.stacks).
            #[inline]
            #[allow(clippy::type_complexity)]
            pub fn stacks<T10>(
                self,
                value: T10,
            ) -> SegmentHeaderBuilder<(T0, T1, T2, T3, T4, T5, T6, T7, T8, T9, T10)>
            where
                T10: ::planus::WriteAsOptional<::planus::Offset<[::planus::Offset<self::StackNode>]>>,
            {
                let (v0, v1, v2, v3, v4, v5, v6, v7, v8, v9) = self.0;
                SegmentHeaderBuilder((v0, v1, v2, v3, v4, v5, v6, v7, v8, v9, value))
            }

            /// Sets the [`stacks` field](SegmentHeader#structfield.stacks) to null.
            #[inline]
            #[allow(clippy::type_complexity)]
            pub fn stacks_as_null(
                self,
            ) -> SegmentHeaderBuilder<(T0, T1, T2, T3, T4, T5, T6, T7, T8, T9, ())> {
                self.stacks(())
            }
        }

        impl<T0, T1, T2, T3, T4, T5, T6, T7, T8, T9, T10>
            SegmentHeaderBuilder<(T0, T1, T2, T3, T4, T5, T6, T7, T8, T9, T10)>
        {
            /// Setter for the [`processes` field](SegmentHeader#structfield.processes).
            #[inline]
            #[allow(clippy::type_complexity)]
            pub fn processes<T11>(
                self,
                value: T11,
            ) -> SegmentHeaderBuilder<(T0, T1, T2, T3, T4, T5, T6, T7, T8, T9, T10, T11)>
            where
                T11: ::planus::WriteAsOptional<::planus::Offset<[::planus::Offset<self::Process>]>>,
            {
                let (v0, v1, v2, v3, v4, v5, v6, v7, v8, v9, v10) = self.0;
                SegmentHeaderBuilder((v0, v1, v2, v3, v4, v5, v6, v7, v8, v9, v10, value))
            }

            /// Sets the [`processes` field](SegmentHeader#structfield.processes) to null.
            #[inline]
            #[allow(clippy::type_complexity)]
            pub fn processes_as_null(
                self,
            ) -> SegmentHeaderBuilder<(T0, T1, T2, T3, T4, T5, T6, T7, T8, T9, T10, ())> {
                self.processes(())
            }
        }

        impl<T0, T1, T2, T3, T4, T5, T6, T7, T8, T9, T10, T11>
            SegmentHeaderBuilder<(T0, T1, T2, T3, T4, T5, T6, T7, T8, T9, T10, T11)>
        {
            /// Setter for the [`threads` field](SegmentHeader#structfield.threads).
            #[inline]
            #[allow(clippy::type_complexity)]
            pub fn threads<T12>(
                self,
                value: T12,
            ) -> SegmentHeaderBuilder<(T0, T1, T2, T3, T4, T5, T6, T7, T8, T9, T10, T11, T12)>
            where
                T12: ::planus::WriteAsOptional<::planus::Offset<[::planus::Offset<self::Thread>]>>,
            {
                let (v0, v1, v2, v3, v4, v5, v6, v7, v8, v9, v10, v11) = self.0;
                SegmentHeaderBuilder((v0, v1, v2, v3, v4, v5, v6, v7, v8, v9, v10, v11, value))
            }

            /// Sets the [`threads` field](SegmentHeader#structfield.threads) to null.
            #[inline]
            #[allow(clippy::type_complexity)]
            pub fn threads_as_null(
                self,
            ) -> SegmentHeaderBuilder<(T0, T1, T2, T3, T4, T5, T6, T7, T8, T9, T10, T11, ())> {
                self.threads(())
            }
        }

        impl<T0, T1, T2, T3, T4, T5, T6, T7, T8, T9, T10, T11, T12>
            SegmentHeaderBuilder<(T0, T1, T2, T3, T4, T5, T6, T7, T8, T9, T10, T11, T12)>
        {
            /// Setter for the [`devices` field](SegmentHeader#structfield.devices).
            #[inline]
            #[allow(clippy::type_complexity)]
            pub fn devices<T13>(
                self,
                value: T13,
            ) -> SegmentHeaderBuilder<(T0, T1, T2, T3, T4, T5, T6, T7, T8, T9, T10, T11, T12, T13)>
            where
                T13: ::planus::WriteAsOptional<::planus::Offset<[::planus::Offset<self::Device>]>>,
            {
                let (v0, v1, v2, v3, v4, v5, v6, v7, v8, v9, v10, v11, v12) = self.0;
                SegmentHeaderBuilder((v0, v1, v2, v3, v4, v5, v6, v7, v8, v9, v10, v11, v12, value))
            }

            /// Sets the [`devices` field](SegmentHeader#structfield.devices) to null.
            #[inline]
            #[allow(clippy::type_complexity)]
            pub fn devices_as_null(
                self,
            ) -> SegmentHeaderBuilder<(T0, T1, T2, T3, T4, T5, T6, T7, T8, T9, T10, T11, T12, ())>
            {
                self.devices(())
            }
        }

        impl<T0, T1, T2, T3, T4, T5, T6, T7, T8, T9, T10, T11, T12, T13>
            SegmentHeaderBuilder<(T0, T1, T2, T3, T4, T5, T6, T7, T8, T9, T10, T11, T12, T13)>
        {
            /// Setter for the [`labels` field](SegmentHeader#structfield.labels).
            #[inline]
            #[allow(clippy::type_complexity)]
            pub fn labels<T14>(
                self,
                value: T14,
            ) -> SegmentHeaderBuilder<(T0, T1, T2, T3, T4, T5, T6, T7, T8, T9, T10, T11, T12, T13, T14)>
            where
                T14: ::planus::WriteAsOptional<::planus::Offset<[::planus::Offset<self::Label>]>>,
            {
                let (v0, v1, v2, v3, v4, v5, v6, v7, v8, v9, v10, v11, v12, v13) = self.0;
                SegmentHeaderBuilder((v0, v1, v2, v3, v4, v5, v6, v7, v8, v9, v10, v11, v12, v13, value))
            }

            /// Sets the [`labels` field](SegmentHeader#structfield.labels) to null.
            #[inline]
            #[allow(clippy::type_complexity)]
            pub fn labels_as_null(
                self,
            ) -> SegmentHeaderBuilder<(T0, T1, T2, T3, T4, T5, T6, T7, T8, T9, T10, T11, T12, T13, ())>
            {
                self.labels(())
            }
        }

        impl<T0, T1, T2, T3, T4, T5, T6, T7, T8, T9, T10, T11, T12, T13, T14>
            SegmentHeaderBuilder<(T0, T1, T2, T3, T4, T5, T6, T7, T8, T9, T10, T11, T12, T13, T14)>
        {
            /// Setter for the [`batches` field](SegmentHeader#structfield.batches).
            #[inline]
            #[allow(clippy::type_complexity)]
            pub fn batches<T15>(
                self,
                value: T15,
            ) -> SegmentHeaderBuilder<(T0, T1, T2, T3, T4, T5, T6, T7, T8, T9, T10, T11, T12, T13, T14, T15)>
            where
                T15: ::planus::WriteAsOptional<::planus::Offset<[::planus::Offset<self::Batch>]>>,
            {
                let (v0, v1, v2, v3, v4, v5, v6, v7, v8, v9, v10, v11, v12, v13, v14) = self.0;
                SegmentHeaderBuilder((v0, v1, v2, v3, v4, v5, v6, v7, v8, v9, v10, v11, v12, v13, v14, value))
            }

            /// Sets the [`batches` field](SegmentHeader#structfield.batches) to null.
            #[inline]
            #[allow(clippy::type_complexity)]
            pub fn batches_as_null(
                self,
            ) -> SegmentHeaderBuilder<(T0, T1, T2, T3, T4, T5, T6, T7, T8, T9, T10, T11, T12, T13, T14, ())>
            {
                self.batches(())
            }
        }

        impl<T0, T1, T2, T3, T4, T5, T6, T7, T8, T9, T10, T11, T12, T13, T14, T15>
            SegmentHeaderBuilder<(T0, T1, T2, T3, T4, T5, T6, T7, T8, T9, T10, T11, T12, T13, T14, T15)>
        {
            /// Finish writing the builder to get an [Offset](::planus::Offset) to a serialized [SegmentHeader].
            #[inline]
            pub fn finish(self, builder: &mut ::planus::Builder) -> ::planus::Offset<SegmentHeader>
            where
                Self: ::planus::WriteAsOffset<SegmentHeader>,
            {
                ::planus::WriteAsOffset::prepare(&self, builder)
            }
        }

        impl<
                T0: ::planus::WriteAsDefault<u64, u64>,
                T1: ::planus::WriteAsOptional<::planus::Offset<::core::primitive::str>>,
                T2: ::planus::WriteAsOptional<::planus::Offset<::core::primitive::str>>,
                T3: ::planus::WriteAsOptional<::planus::Offset<::core::primitive::str>>,
                T4: ::planus::WriteAsOptional<::planus::Offset<[::planus::Offset<self::Source>]>>,
                T5: ::planus::WriteAsOptional<::planus::Offset<[::planus::Offset<self::Clock>]>>,
                T6: ::planus::WriteAsOptional<::planus::Offset<[::planus::Offset<self::LossCount>]>>,
                T7: ::planus::WriteAsDefault<u32, u32>,
                T8: ::planus::WriteAsOptional<::planus::Offset<[::planus::Offset<str>]>>,
                T9: ::planus::WriteAsDefault<u32, u32>,
                T10: ::planus::WriteAsOptional<::planus::Offset<[::planus::Offset<self::StackNode>]>>,
                T11: ::planus::WriteAsOptional<::planus::Offset<[::planus::Offset<self::Process>]>>,
                T12: ::planus::WriteAsOptional<::planus::Offset<[::planus::Offset<self::Thread>]>>,
                T13: ::planus::WriteAsOptional<::planus::Offset<[::planus::Offset<self::Device>]>>,
                T14: ::planus::WriteAsOptional<::planus::Offset<[::planus::Offset<self::Label>]>>,
                T15: ::planus::WriteAsOptional<::planus::Offset<[::planus::Offset<self::Batch>]>>,
            > ::planus::WriteAs<::planus::Offset<SegmentHeader>>
            for SegmentHeaderBuilder<(T0, T1, T2, T3, T4, T5, T6, T7, T8, T9, T10, T11, T12, T13, T14, T15)>
        {
            type Prepared = ::planus::Offset<SegmentHeader>;

            #[inline]
            fn prepare(&self, builder: &mut ::planus::Builder) -> ::planus::Offset<SegmentHeader> {
                ::planus::WriteAsOffset::prepare(self, builder)
            }
        }

        impl<
                T0: ::planus::WriteAsDefault<u64, u64>,
                T1: ::planus::WriteAsOptional<::planus::Offset<::core::primitive::str>>,
                T2: ::planus::WriteAsOptional<::planus::Offset<::core::primitive::str>>,
                T3: ::planus::WriteAsOptional<::planus::Offset<::core::primitive::str>>,
                T4: ::planus::WriteAsOptional<::planus::Offset<[::planus::Offset<self::Source>]>>,
                T5: ::planus::WriteAsOptional<::planus::Offset<[::planus::Offset<self::Clock>]>>,
                T6: ::planus::WriteAsOptional<::planus::Offset<[::planus::Offset<self::LossCount>]>>,
                T7: ::planus::WriteAsDefault<u32, u32>,
                T8: ::planus::WriteAsOptional<::planus::Offset<[::planus::Offset<str>]>>,
                T9: ::planus::WriteAsDefault<u32, u32>,
                T10: ::planus::WriteAsOptional<::planus::Offset<[::planus::Offset<self::StackNode>]>>,
                T11: ::planus::WriteAsOptional<::planus::Offset<[::planus::Offset<self::Process>]>>,
                T12: ::planus::WriteAsOptional<::planus::Offset<[::planus::Offset<self::Thread>]>>,
                T13: ::planus::WriteAsOptional<::planus::Offset<[::planus::Offset<self::Device>]>>,
                T14: ::planus::WriteAsOptional<::planus::Offset<[::planus::Offset<self::Label>]>>,
                T15: ::planus::WriteAsOptional<::planus::Offset<[::planus::Offset<self::Batch>]>>,
            > ::planus::WriteAsOptional<::planus::Offset<SegmentHeader>>
            for SegmentHeaderBuilder<(T0, T1, T2, T3, T4, T5, T6, T7, T8, T9, T10, T11, T12, T13, T14, T15)>
        {
            type Prepared = ::planus::Offset<SegmentHeader>;

            #[inline]
            fn prepare(
                &self,
                builder: &mut ::planus::Builder,
            ) -> ::core::option::Option<::planus::Offset<SegmentHeader>> {
                ::core::option::Option::Some(::planus::WriteAsOffset::prepare(self, builder))
            }
        }

        impl<
                T0: ::planus::WriteAsDefault<u64, u64>,
                T1: ::planus::WriteAsOptional<::planus::Offset<::core::primitive::str>>,
                T2: ::planus::WriteAsOptional<::planus::Offset<::core::primitive::str>>,
                T3: ::planus::WriteAsOptional<::planus::Offset<::core::primitive::str>>,
                T4: ::planus::WriteAsOptional<::planus::Offset<[::planus::Offset<self::Source>]>>,
                T5: ::planus::WriteAsOptional<::planus::Offset<[::planus::Offset<self::Clock>]>>,
                T6: ::planus::WriteAsOptional<::planus::Offset<[::planus::Offset<self::LossCount>]>>,
                T7: ::planus::WriteAsDefault<u32, u32>,
                T8: ::planus::WriteAsOptional<::planus::Offset<[::planus::Offset<str>]>>,
                T9: ::planus::WriteAsDefault<u32, u32>,
                T10: ::planus::WriteAsOptional<::planus::Offset<[::planus::Offset<self::StackNode>]>>,
                T11: ::planus::WriteAsOptional<::planus::Offset<[::planus::Offset<self::Process>]>>,
                T12: ::planus::WriteAsOptional<::planus::Offset<[::planus::Offset<self::Thread>]>>,
                T13: ::planus::WriteAsOptional<::planus::Offset<[::planus::Offset<self::Device>]>>,
                T14: ::planus::WriteAsOptional<::planus::Offset<[::planus::Offset<self::Label>]>>,
                T15: ::planus::WriteAsOptional<::planus::Offset<[::planus::Offset<self::Batch>]>>,
            > ::planus::WriteAsOffset<SegmentHeader>
            for SegmentHeaderBuilder<(T0, T1, T2, T3, T4, T5, T6, T7, T8, T9, T10, T11, T12, T13, T14, T15)>
        {
            #[inline]
            fn prepare(&self, builder: &mut ::planus::Builder) -> ::planus::Offset<SegmentHeader> {
                let (v0, v1, v2, v3, v4, v5, v6, v7, v8, v9, v10, v11, v12, v13, v14, v15) = &self.0;
                SegmentHeader::create(
                    builder, v0, v1, v2, v3, v4, v5, v6, v7, v8, v9, v10, v11, v12, v13, v14, v15,
                )
            }
        }

        /// Reference to a deserialized [SegmentHeader].
        #[derive(Copy, Clone)]
        pub struct SegmentHeaderRef<'a>(#[allow(dead_code)] ::planus::table_reader::Table<'a>);

        impl<'a> SegmentHeaderRef<'a> {
            /// Getter for the [`sequence` field](SegmentHeader#structfield.sequence).
            #[inline]
            pub fn sequence(&self) -> ::planus::Result<u64> {
                ::core::result::Result::Ok(self.0.access(0, "SegmentHeader", "sequence")?.unwrap_or(0))
            }

            /// Getter for the [`writer` field](SegmentHeader#structfield.writer).
            #[inline]
            pub fn writer(&self) -> ::planus::Result<::core::option::Option<&'a ::core::primitive::str>> {
                self.0.access(1, "SegmentHeader", "writer")
            }

            /// Getter for the [`host` field](SegmentHeader#structfield.host).
            #[inline]
            pub fn host(&self) -> ::planus::Result<::core::option::Option<&'a ::core::primitive::str>> {
                self.0.access(2, "SegmentHeader", "host")
            }

            /// Getter for the [`boot_id` field](SegmentHeader#structfield.boot_id).
            #[inline]
            pub fn boot_id(&self) -> ::planus::Result<::core::option::Option<&'a ::core::primitive::str>> {
                self.0.access(3, "SegmentHeader", "boot_id")
            }

            /// Getter for the [`sources` field](SegmentHeader#structfield.sources).
            #[inline]
            pub fn sources(
                &self,
            ) -> ::planus::Result<
                ::core::option::Option<::planus::Vector<'a, ::planus::Result<self::SourceRef<'a>>>>,
            > {
                self.0.access(4, "SegmentHeader", "sources")
            }

            /// Getter for the [`clocks` field](SegmentHeader#structfield.clocks).
            #[inline]
            pub fn clocks(
                &self,
            ) -> ::planus::Result<
                ::core::option::Option<::planus::Vector<'a, ::planus::Result<self::ClockRef<'a>>>>,
            > {
                self.0.access(5, "SegmentHeader", "clocks")
            }

            /// Getter for the [`losses` field](SegmentHeader#structfield.losses).
            #[inline]
            pub fn losses(
                &self,
            ) -> ::planus::Result<
                ::core::option::Option<::planus::Vector<'a, ::planus::Result<self::LossCountRef<'a>>>>,
            > {
                self.0.access(6, "SegmentHeader", "losses")
            }

            /// Getter for the [`first_string` field](SegmentHeader#structfield.first_string).
            #[inline]
            pub fn first_string(&self) -> ::planus::Result<u32> {
                ::core::result::Result::Ok(self.0.access(7, "SegmentHeader", "first_string")?.unwrap_or(0))
            }

            /// Getter for the [`strings` field](SegmentHeader#structfield.strings).
            #[inline]
            pub fn strings(
                &self,
            ) -> ::planus::Result<
                ::core::option::Option<::planus::Vector<'a, ::planus::Result<&'a ::core::primitive::str>>>,
            > {
                self.0.access(8, "SegmentHeader", "strings")
            }

            /// Getter for the [`first_stack` field](SegmentHeader#structfield.first_stack).
            #[inline]
            pub fn first_stack(&self) -> ::planus::Result<u32> {
                ::core::result::Result::Ok(self.0.access(9, "SegmentHeader", "first_stack")?.unwrap_or(0))
            }

            /// Getter for the [`stacks` field](SegmentHeader#structfield.stacks).
            #[inline]
            pub fn stacks(
                &self,
            ) -> ::planus::Result<
                ::core::option::Option<::planus::Vector<'a, ::planus::Result<self::StackNodeRef<'a>>>>,
            > {
                self.0.access(10, "SegmentHeader", "stacks")
            }

            /// Getter for the [`processes` field](SegmentHeader#structfield.processes).
            #[inline]
            pub fn processes(
                &self,
            ) -> ::planus::Result<
                ::core::option::Option<::planus::Vector<'a, ::planus::Result<self::ProcessRef<'a>>>>,
            > {
                self.0.access(11, "SegmentHeader", "processes")
            }

            /// Getter for the [`threads` field](SegmentHeader#structfield.threads).
            #[inline]
            pub fn threads(
                &self,
            ) -> ::planus::Result<
                ::core::option::Option<::planus::Vector<'a, ::planus::Result<self::ThreadRef<'a>>>>,
            > {
                self.0.access(12, "SegmentHeader", "threads")
            }

            /// Getter for the [`devices` field](SegmentHeader#structfield.devices).
            #[inline]
            pub fn devices(
                &self,
            ) -> ::planus::Result<
                ::core::option::Option<::planus::Vector<'a, ::planus::Result<self::DeviceRef<'a>>>>,
            > {
                self.0.access(13, "SegmentHeader", "devices")
            }

            /// Getter for the [`labels` field](SegmentHeader#structfield.labels).
            #[inline]
            pub fn labels(
                &self,
            ) -> ::planus::Result<
                ::core::option::Option<::planus::Vector<'a, ::planus::Result<self::LabelRef<'a>>>>,
            > {
                self.0.access(14, "SegmentHeader", "labels")
            }

            /// Getter for the [`batches` field](SegmentHeader#structfield.batches).
            #[inline]
            pub fn batches(
                &self,
            ) -> ::planus::Result<
                ::core::option::Option<::planus::Vector<'a, ::planus::Result<self::BatchRef<'a>>>>,
            > {
                self.0.access(15, "SegmentHeader", "batches")
            }
        }

        impl<'a> ::core::fmt::Debug for SegmentHeaderRef<'a> {
            fn fmt(&self, f: &mut ::core::fmt::Formatter<'_>) -> ::core::fmt::Result {
                let mut f = f.debug_struct("SegmentHeaderRef");
                f.field("sequence", &self.sequence());
                if let ::core::option::Option::Some(field_writer) = self.writer().transpose() {
                    f.field("writer", &field_writer);
                }
                if let ::core::option::Option::Some(field_host) = self.host().transpose() {
                    f.field("host", &field_host);
                }
                if let ::core::option::Option::Some(field_boot_id) = self.boot_id().transpose() {
                    f.field("boot_id", &field_boot_id);
                }
                if let ::core::option::Option::Some(field_sources) = self.sources().transpose() {
                    f.field("sources", &field_sources);
                }
                if let ::core::option::Option::Some(field_clocks) = self.clocks().transpose() {
                    f.field("clocks", &field_clocks);
                }
                if let ::core::option::Option::Some(field_losses) = self.losses().transpose() {
                    f.field("losses", &field_losses);
                }
                f.field("first_string", &self.first_string());
                if let ::core::option::Option::Some(field_strings) = self.strings().transpose() {
                    f.field("strings", &field_strings);
                }
                f.field("first_stack", &self.first_stack());
                if let ::core::option::Option::Some(field_stacks) = self.stacks().transpose() {
                    f.field("stacks", &field_stacks);
                }
                if let ::core::option::Option::Some(field_processes) = self.processes().transpose() {
                    f.field("processes", &field_processes);
                }
                if let ::core::option::Option::Some(field_threads) = self.threads().transpose() {
                    f.field("threads", &field_threads);
                }
                if let ::core::option::Option::Some(field_devices) = self.devices().transpose() {
                    f.field("devices", &field_devices);
                }
                if let ::core::option::Option::Some(field_labels) = self.labels().transpose() {
                    f.field("labels", &field_labels);
                }
                if let ::core::option::Option::Some(field_batches) = self.batches().transpose() {
                    f.field("batches", &field_batches);
                }
                f.finish()
            }
        }

        impl<'a> ::core::convert::TryFrom<SegmentHeaderRef<'a>> for SegmentHeader {
            type Error = ::planus::Error;

            #[allow(unreachable_code)]
            fn try_from(value: SegmentHeaderRef<'a>) -> ::planus::Result<Self> {
                ::core::result::Result::Ok(Self {
                    sequence: ::core::convert::TryInto::try_into(value.sequence()?)?,
                    writer: value.writer()?.map(::core::convert::Into::into),
                    host: value.host()?.map(::core::convert::Into::into),
                    boot_id: value.boot_id()?.map(::core::convert::Into::into),
                    sources: if let ::core::option::Option::Some(sources) = value.sources()? {
                        ::core::option::Option::Some(sources.to_vec_result()?)
                    } else {
                        ::core::option::Option::None
                    },
                    clocks: if let ::core::option::Option::Some(clocks) = value.clocks()? {
                        ::core::option::Option::Some(clocks.to_vec_result()?)
                    } else {
                        ::core::option::Option::None
                    },
                    losses: if let ::core::option::Option::Some(losses) = value.losses()? {
                        ::core::option::Option::Some(losses.to_vec_result()?)
                    } else {
                        ::core::option::Option::None
                    },
                    first_string: ::core::convert::TryInto::try_into(value.first_string()?)?,
                    strings: if let ::core::option::Option::Some(strings) = value.strings()? {
                        ::core::option::Option::Some(strings.to_vec_result()?)
                    } else {
                        ::core::option::Option::None
                    },
                    first_stack: ::core::convert::TryInto::try_into(value.first_stack()?)?,
                    stacks: if let ::core::option::Option::Some(stacks) = value.stacks()? {
                        ::core::option::Option::Some(stacks.to_vec_result()?)
                    } else {
                        ::core::option::Option::None
                    },
                    processes: if let ::core::option::Option::Some(processes) = value.processes()? {
                        ::core::option::Option::Some(processes.to_vec_result()?)
                    } else {
                        ::core::option::Option::None
                    },
                    threads: if let ::core::option::Option::Some(threads) = value.threads()? {
                        ::core::option::Option::Some(threads.to_vec_result()?)
                    } else {
                        ::core::option::Option::None
                    },
                    devices: if let ::core::option::Option::Some(devices) = value.devices()? {
                        ::core::option::Option::Some(devices.to_vec_result()?)
                    } else {
                        ::core::option::Option::None
                    },
                    labels: if let ::core::option::Option::Some(labels) = value.labels()? {
                        ::core::option::Option::Some(labels.to_vec_result()?)
                    } else {
                        ::core::option::Option::None
                    },
                    batches: if let ::core::option::Option::Some(batches) = value.batches()? {
                        ::core::option::Option::Some(batches.to_vec_result()?)
                    } else {
                        ::core::option::Option::None
                    },
                })
            }
        }

        impl<'a> ::planus::TableRead<'a> for SegmentHeaderRef<'a> {
            #[inline]
            fn from_buffer(
                buffer: ::planus::SliceWithStartOffset<'a>,
                offset: usize,
            ) -> ::core::result::Result<Self, ::planus::errors::ErrorKind> {
                ::core::result::Result::Ok(Self(::planus::table_reader::Table::from_buffer(buffer, offset)?))
            }
        }

        impl<'a> ::planus::VectorReadInner<'a> for SegmentHeaderRef<'a> {
            type Error = ::planus::Error;
            const STRIDE: usize = 4;

            unsafe fn from_buffer(
                buffer: ::planus::SliceWithStartOffset<'a>,
                offset: usize,
            ) -> ::planus::Result<Self> {
                ::planus::TableRead::from_buffer(buffer, offset).map_err(|error_kind| {
                    error_kind.with_error_location("[SegmentHeaderRef]", "get", buffer.offset_from_start)
                })
            }
        }

        /// # Safety
        /// The planus compiler generates implementations that initialize
        /// the bytes in `write_values`.
        unsafe impl ::planus::VectorWrite<::planus::Offset<SegmentHeader>> for SegmentHeader {
            type Value = ::planus::Offset<SegmentHeader>;
            const STRIDE: usize = 4;
            #[inline]
            fn prepare(&self, builder: &mut ::planus::Builder) -> Self::Value {
                ::planus::WriteAs::prepare(self, builder)
            }

            #[inline]
            unsafe fn write_values(
                values: &[::planus::Offset<SegmentHeader>],
                bytes: *mut ::core::mem::MaybeUninit<u8>,
                buffer_position: u32,
            ) {
                let bytes = bytes as *mut [::core::mem::MaybeUninit<u8>; 4];
                for (i, v) in ::core::iter::Iterator::enumerate(values.iter()) {
                    ::planus::WriteAsPrimitive::write(
                        v,
                        ::planus::Cursor::new(unsafe { &mut *bytes.add(i) }),
                        buffer_position - (Self::STRIDE * i) as u32,
                    );
                }
            }
        }

        impl<'a> ::planus::ReadAsRoot<'a> for SegmentHeaderRef<'a> {
            fn read_as_root(slice: &'a [u8]) -> ::planus::Result<Self> {
                ::planus::TableRead::from_buffer(
                    ::planus::SliceWithStartOffset { buffer: slice, offset_from_start: 0 },
                    0,
                )
                .map_err(|error_kind| error_kind.with_error_location("[SegmentHeaderRef]", "read_as_root", 0))
            }
        }
    }
}
